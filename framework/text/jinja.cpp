// The parser turns a template into functions: an expression gives a value in a scope, a statement
// writes.
#include "text/jinja.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "attune/error.hpp"
#include "text/jinja_lexer.hpp"
#include "text/jinja_library.hpp"
#include "text/python_text.hpp"

namespace attune::jinja {
namespace {

using Kind = Sequence::Kind;
using Type = Token::Type;

template <class... Args>
[[noreturn]] void raise(fmt::format_string<Args...> text, Args&&... args) {
  throw Failure(fmt::format(text, std::forward<Args>(args)...));
}

/// Names and their values; what is not found here is looked for around it.
struct Scope {
  std::shared_ptr<Scope> around;
  std::vector<std::pair<std::string, Value>> values;

  const Value* find(const std::string& name) const {
    for (const auto* scope = this; scope; scope = scope->around.get())
      for (const auto& [known, value] : scope->values)
        if (known == name) return &value;
    return nullptr;
  }
  void set(const std::string& name, Value value) {
    const auto found = std::find_if(values.begin(), values.end(),
                                    [&](const auto& one) { return one.first == name; });
    if (found == values.end())
      values.emplace_back(name, std::move(value));
    else
      found->second = std::move(value);
  }
};
using ScopePtr = std::shared_ptr<Scope>;

ScopePtr inside(const ScopePtr& around) { return std::make_shared<Scope>(Scope{around, {}}); }

/// Where a stretch of the template writes to.
struct Output {
  std::string text;
  // null inside a macro or a captured block, whose text may still change
  std::vector<Span>* generated = nullptr;
  // set when a {% generation %} block stands in one of these
  bool* lost = nullptr;
};

enum class Flow { on, leave, next };  // what a loop does then: break, continue
using Expression = std::function<Value(const ScopePtr&)>;
using Statement = std::function<Flow(const ScopePtr&, Output&)>;
using Target = std::function<void(const ScopePtr&, Value)>;

/// The text of a block that is not written where it stands.
std::string captured(const Statement& body, const ScopePtr& scope, bool* lost) {
  Output output{{}, nullptr, lost};
  body(scope, output);
  return std::move(output.text);
}

struct CallArguments {
  std::vector<Expression> positional;
  std::vector<std::pair<std::string, Expression>> named;
  // *list, **dict
  Expression list;
  Expression dict;

  Arguments in(const ScopePtr& scope) const {
    Arguments values;
    for (const auto& one : positional) values.positional.push_back(one(scope));
    for (const auto& [name, one] : named) values.named.emplace_back(name, one(scope));
    if (list)
      for (auto& one : list(scope).items()) values.positional.push_back(std::move(one));
    if (!dict) return values;
    const auto more = dict(scope);
    if (!more.dict()) raise("argument after ** must be a mapping, not {}", more.type());
    for (const auto& [name, value] : *more.dict()) values.named.emplace_back(name.str(), value);
    return values;
  }
};

// Loops

struct LoopState final : Object {
  Values items;
  std::size_t at = 0;
  mutable std::optional<Values> last_changed;

  std::optional<Value> attribute(const std::string& name) const override {
    const auto place = static_cast<std::int64_t>(at);
    const auto size = std::ssize(items);
    if (name == "index") return place + 1;
    if (name == "index0") return place;
    if (name == "revindex") return size - place;
    if (name == "revindex0") return size - place - 1;
    if (name == "first") return at == 0;
    if (name == "last") return place == size - 1;
    if (name == "length") return size;
    if (name == "depth") return 1;  // counts recursion alone
    if (name == "depth0") return 0;
    if (name == "previtem")
      return at > 0 ? items[at - 1] : Value(Undefined{"there is no previous item"});
    if (name == "nextitem")
      return place + 1 < size ? items[at + 1] : Value(Undefined{"there is no next item"});
    if (name == "cycle")
      return Value::function([this](const Arguments& given) { return cycle(given.positional); });
    if (name == "changed")
      return Value::function([this](const Arguments& given) { return changed(given.positional); });
    return std::nullopt;
  }

 private:
  Value cycle(const Values& given) const {
    if (given.empty()) raise("no items for cycling given");
    return given[at % given.size()];
  }
  Value changed(const Values& given) const {
    const bool same = last_changed && *last_changed == given;
    last_changed = given;
    return !same;
  }
};

struct Loop {
  Target target;
  Expression over;
  Expression only_if;
  Statement body;
  Statement otherwise;

  Flow run(const ScopePtr& scope, Output& output) const {
    auto state = std::make_shared<LoopState>();
    state->items = items(scope);
    if (state->items.empty()) return otherwise ? otherwise(inside(scope), output) : Flow::on;
    for (state->at = 0; state->at < state->items.size(); ++state->at) {
      const auto turn = inside(scope);
      target(turn, state->items[state->at]);
      turn->set("loop", std::shared_ptr<Object>(state));
      if (body(turn, output) == Flow::leave) break;
    }
    return Flow::on;
  }

 private:
  Values items(const ScopePtr& scope) const {
    auto all = over(scope).items();
    if (!only_if) return all;
    Values kept;
    for (auto& item : all) {
      const auto turn = inside(scope);
      target(turn, item);
      if (only_if(turn).truth()) kept.push_back(std::move(item));
    }
    return kept;
  }
};

// Macros

struct Parameter {
  std::string name;
  Expression otherwise;  // none: undefined when it is not given
};

struct Macro {
  std::string name;
  std::vector<Parameter> parameters;
  std::set<std::string> reads;  // names in its body
  Statement body;

  Value in(const ScopePtr& scope, bool* lost) const {
    return Value::function([macro = *this, scope, lost](const Arguments& arguments) -> Value {
      thread_local int depth = 0;
      const struct Deeper {
        Deeper() {
          if (++depth > 200) {
            --depth;
            raise("maximum recursion depth exceeded");
          }
        }
        ~Deeper() { --depth; }
      } deeper;
      return captured(macro.body, macro.bound(scope, arguments), lost);
    });
  }

 private:
  ScopePtr bound(const ScopePtr& scope, const Arguments& arguments) const {
    const auto call = inside(scope);
    auto named = arguments.named;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto& parameter = parameters[i];
      const auto found = std::find_if(named.begin(), named.end(),
                                      [&](const auto& one) { return one.first == parameter.name; });
      const bool by_place = i < arguments.positional.size();
      if (by_place && found != named.end())
        raise("macro '{}' got two values for '{}'", name, parameter.name);
      call->set(parameter.name, by_place               ? arguments.positional[i]
                                : found != named.end() ? found->second
                                                       : missing(parameter, call));
      if (found != named.end()) named.erase(found);
    }
    bind_rest(arguments, std::move(named), *call);
    return call;
  }

  static Value missing(const Parameter& parameter, const ScopePtr& call) {
    if (parameter.otherwise) return parameter.otherwise(call);
    return Undefined{fmt::format("parameter '{}' was not provided", parameter.name)};
  }

  void bind_rest(const Arguments& arguments, std::vector<std::pair<std::string, Value>> named,
                 Scope& call) const {
    const auto caller = std::find_if(named.begin(), named.end(),
                                     [](const auto& one) { return one.first == "caller"; });
    if (reads.contains("caller")) {
      call.set("caller",
               caller != named.end() ? caller->second : Value(Undefined{"No caller defined"}));
      if (caller != named.end()) named.erase(caller);
    }
    if (reads.contains("kwargs")) {
      Dict rest;
      for (auto& [key, value] : named) rest.emplace_back(key, std::move(value));
      call.set("kwargs", Value::dict(std::move(rest)));
    } else if (!named.empty()) {
      raise("macro '{}' takes no keyword argument '{}'", name, named.front().first);
    }
    const auto used = std::min(parameters.size(), arguments.positional.size());
    const Values rest(arguments.positional.begin() + static_cast<std::ptrdiff_t>(used),
                      arguments.positional.end());
    if (!reads.contains("varargs") && !rest.empty())
      raise("macro '{}' takes not more than {} argument(s)", name, parameters.size());
    if (reads.contains("varargs")) call.set("varargs", Value::sequence(Kind::tuple, rest));
  }
};

Value slice_of(const Value& value, const std::array<Expression, 3>& parts, const ScopePtr& scope) {
  std::array<std::optional<std::int64_t>, 3> places;
  for (std::size_t i = 0; i < 3; ++i) {
    const auto place = parts[i] ? parts[i](scope) : Value(None{});
    if (!place.is_none() && !place.is_whole())
      raise("slice indices must be integers or None or have an __index__ method");
    if (!place.is_none()) places[i] = place.whole();
  }
  if (value.is_undefined()) raise("{}", value.as<Undefined>().message);
  const bool sequence = value.is_sequence(Kind::list) || value.is_sequence(Kind::tuple) ||
                        value.is_sequence(Kind::range);
  if (!sequence && !value.is_text())
    return Undefined{fmt::format("'{}' object cannot be sliced", value.type())};
  if (value.is_safe()) raise("a text marked by |safe cannot be sliced");
  if (places[2] == 0) raise("slice step cannot be zero");
  const auto items = value.items();
  Values taken;
  for (const auto i : python::slice(std::ssize(items), places[0], places[1], places[2].value_or(1)))
    taken.push_back(items[static_cast<std::size_t>(i)]);
  if (!value.is_text()) return Value::sequence(value.sequence()->kind, std::move(taken));
  std::string text;
  for (const auto& c : taken) text += c.text();
  return text;
}

class Parser {
 public:
  explicit Parser(std::string_view source) : tokens_(tokens_of(source)) {}

  Statement parse() {
    auto body = parse_block({});
    if (now().type != Type::end) wrong("there is no tag '{}' to close here", now().text);
    return body;
  }

  bool marks_answers() const { return marks_answers_; }

 private:
  template <class... Args>
  [[noreturn]] void wrong(fmt::format_string<Args...> text, Args&&... args) const {
    fail("the chat template, line {}: {}", now().line,
         fmt::format(text, std::forward<Args>(args)...));
  }

  // Tokens

  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  static bool is(const Token& token, Type type, std::string_view text) {
    return token.type == type && token.text == text;
  }
  bool is_name(std::string_view text) const { return is(now(), Type::name, text); }
  bool is_sign(std::string_view text) const { return is(now(), Type::sign, text); }
  bool take(Type type, std::string_view text) {
    const bool there = is(now(), type, text);
    at_ += there;
    return there;
  }
  bool take_name(std::string_view text) { return take(Type::name, text); }
  bool take_sign(std::string_view text) { return take(Type::sign, text); }
  std::string take(Type type, const char* what) {
    if (now().type != type) wrong("{} is missing before \"{}\"", what, now().text);
    return tokens_[at_++].text;
  }
  std::string take_any_name() { return take(Type::name, "a name"); }
  void need_sign(std::string_view text) {
    if (!take_sign(text)) wrong("\"{}\" is missing before \"{}\"", text, now().text);
  }
  void need_name(std::string_view text) {
    if (!take_name(text)) wrong("'{}' is missing before \"{}\"", text, now().text);
  }
  void need_end_of_tag() { take(Type::close_tag, "the end of the tag"); }

  /// Keeps the functions that an expression becomes from nesting without end, whatever the
  /// template.
  class Level {
   public:
    explicit Level(Parser& parser) : parser_(parser) { parser_.deepen(); }
    ~Level() { parser_.depth_ -= steps_; }
    Level(const Level&) = delete;
    void step() {
      ++steps_;
      parser_.deepen();
    }

   private:
    Parser& parser_;
    int steps_ = 1;
  };

  void deepen() {
    if (++depth_ > 500) wrong("it is nested too deeply, or an expression is too long");
  }

  // Statements

  /// Up to a tag of one of these names, whose name is then the current token; to the end where
  /// there are none.
  Statement parse_block(const std::vector<std::string>& ends) {
    std::vector<Statement> statements;
    while (now().type != Type::end) {
      if (now().type == Type::open_tag &&
          std::find(ends.begin(), ends.end(), ahead().text) != ends.end()) {
        ++at_;
        return in_sequence(std::move(statements));
      }
      statements.push_back(parse_statement());
    }
    if (!ends.empty()) wrong("a block is not closed: '{}' is missing", ends.back());
    return in_sequence(std::move(statements));
  }

  static Statement in_sequence(std::vector<Statement> statements) {
    if (statements.size() == 1) return std::move(statements.front());
    return [statements = std::move(statements)](const ScopePtr& scope, Output& output) {
      for (const auto& statement : statements)
        if (const auto flow = statement(scope, output); flow != Flow::on) return flow;
      return Flow::on;
    };
  }

  /// The body of a block that ends with {% end %}, behind which this goes on.
  Statement parse_body(const std::string& end) {
    need_end_of_tag();
    auto body = parse_block({end});
    ++at_;
    need_end_of_tag();
    return body;
  }

  Statement parse_statement() {
    const Level level(*this);
    const auto token = tokens_[at_++];
    if (token.type == Type::text)
      return [text = token.text](const ScopePtr&, Output& output) {
        output.text += text;
        return Flow::on;
      };
    if (token.type == Type::open_expression) {
      auto value = parse_tuple();
      take(Type::close_expression, "\"}}\"");
      return [value = std::move(value)](const ScopePtr& scope, Output& output) {
        output.text += value(scope).str();
        return Flow::on;
      };
    }
    return parse_tag(take_any_name());
  }

  Statement parse_tag(const std::string& name) {
    if (name == "if") return parse_if();
    if (name == "for") return parse_for();
    if (name == "set") return parse_set();
    if (name == "macro") return parse_macro();
    if (name == "call") return parse_call_block();
    if (name == "filter") return parse_filter_block();
    if (name == "with") return parse_with();
    if (name == "generation") return parse_generation();
    if (name == "break" || name == "continue")
      return parse_loop_control(name == "break" ? Flow::leave : Flow::next);
    --at_;
    static const std::set<std::string> others = {"include",    "import", "from", "extends", "block",
                                                 "autoescape", "print",  "do",   "trans"};
    if (others.contains(name)) wrong("the tag '{}' is not supported in chat templates", name);
    wrong("there is no tag '{}' here", name);
  }

  Statement parse_if() {
    std::vector<std::pair<Expression, Statement>> branches;
    Statement otherwise;
    for (;;) {
      auto condition = parse_tuple(false);
      need_end_of_tag();
      branches.emplace_back(std::move(condition), parse_block({"elif", "else", "endif"}));
      const auto end = take_any_name();
      if (end == "elif") continue;
      if (end == "else")
        otherwise = parse_body("endif");
      else
        need_end_of_tag();
      break;
    }
    return [branches = std::move(branches), otherwise = std::move(otherwise)](const ScopePtr& scope,
                                                                              Output& output) {
      for (const auto& [condition, body] : branches)
        if (condition(scope).truth()) return body(scope, output);
      return otherwise ? otherwise(scope, output) : Flow::on;
    };
  }

  Statement parse_for() {
    Loop loop;
    loop.target = parse_target("in");
    need_name("in");
    loop.over = parse_tuple(false);
    if (take_name("if")) loop.only_if = parse_expression();
    if (is_name("recursive")) wrong("recursive loops are not supported");
    need_end_of_tag();
    ++loops_;
    loop.body = parse_block({"else", "endfor"});
    --loops_;
    if (take_any_name() == "else")
      loop.otherwise = parse_body("endfor");
    else
      need_end_of_tag();
    return [loop = std::move(loop)](const ScopePtr& scope, Output& output) {
      return loop.run(scope, output);
    };
  }

  Statement parse_loop_control(Flow flow) {
    if (loops_ == 0) wrong("'break' and 'continue' are allowed only in loops");
    need_end_of_tag();
    return [flow](const ScopePtr&, Output&) { return flow; };
  }

  /// A name, a namespace's attribute, or several of them.
  Target parse_target(const std::string& end) {
    std::vector<Target> targets;
    bool several = false;
    const bool bracketed = take_sign("(");
    do {
      if (targets.empty() || !(is_sign(")") || is_name(end)))
        targets.push_back(parse_simple_target());
      several = several || is_sign(",");
    } while (take_sign(","));
    if (bracketed) need_sign(")");
    if (!several) return std::move(targets.front());
    return [targets = std::move(targets)](const ScopePtr& scope, Value value) {
      auto items = value.items();
      if (items.size() != targets.size())
        raise("cannot unpack {} values into {} names", items.size(), targets.size());
      for (std::size_t i = 0; i < items.size(); ++i) targets[i](scope, std::move(items[i]));
    };
  }

  Target parse_simple_target() {
    auto name = take_any_name();
    if (!take_sign("."))
      return [name = std::move(name)](const ScopePtr& scope, Value value) {
        scope->set(name, std::move(value));
      };
    return
        [name = std::move(name), attribute = take_any_name()](const ScopePtr& scope, Value value) {
          const auto* found = scope->find(name);
          auto* space = found ? dynamic_cast<Namespace*>(found->object()) : nullptr;
          if (!space) raise("cannot assign attribute on non-namespace object");
          space->set(attribute, std::move(value));
        };
  }

  Statement parse_set() {
    auto target = parse_target("");
    if (take_sign("=")) {
      auto value = parse_tuple();
      need_end_of_tag();
      return
          [target = std::move(target), value = std::move(value)](const ScopePtr& scope, Output&) {
            target(scope, value(scope));
            return Flow::on;
          };
    }
    auto change = is_sign("|") ? parse_filters(written()) : written();
    auto body = parse_body("endset");
    return [target = std::move(target), body = std::move(body), change = std::move(change)](
               const ScopePtr& scope, Output& output) {
      target(scope, changed(captured(body, inside(scope), output.lost), change, scope));
      return Flow::on;
    };
  }

  Statement parse_filter_block() {
    --at_;
    // "filter upper" is "| upper" of what the block writes
    tokens_[at_] = {Type::sign, "|", now().line};
    auto change = parse_filters(written());
    auto body = parse_body("endfilter");
    return [body = std::move(body), change = std::move(change)](const ScopePtr& scope,
                                                                Output& output) {
      output.text += changed(captured(body, inside(scope), output.lost), change, scope).str();
      return Flow::on;
    };
  }

  static constexpr const char* written_name = " written";  // no name of a template
  static Expression written() {
    return [](const ScopePtr& scope) { return *scope->find(written_name); };
  }
  static Value changed(std::string text, const Expression& change, const ScopePtr& around) {
    const auto scope = inside(around);
    scope->set(written_name, std::move(text));
    return change(scope);
  }

  Statement parse_with() {
    std::vector<std::pair<Target, Expression>> values;
    while (now().type != Type::close_tag) {
      if (!values.empty()) need_sign(",");
      auto target = parse_simple_target();
      need_sign("=");
      values.emplace_back(std::move(target), parse_expression());
    }
    auto body = parse_body("endwith");
    return [values = std::move(values), body = std::move(body)](const ScopePtr& scope,
                                                                Output& output) {
      const auto inner = inside(scope);
      for (const auto& [target, value] : values) target(inner, value(scope));
      return body(inner, output);
    };
  }

  std::vector<Parameter> parse_parameters() {
    std::vector<Parameter> parameters;
    need_sign("(");
    while (!take_sign(")")) {
      if (!parameters.empty()) need_sign(",");
      Parameter parameter{take_any_name(), {}};
      if (take_sign("="))
        parameter.otherwise = parse_expression();
      else if (!parameters.empty() && parameters.back().otherwise)
        wrong("a parameter without a default follows one with a default");
      parameters.push_back(std::move(parameter));
    }
    return parameters;
  }

  /// A macro's body, and the names it reads.
  void parse_macro_body(Macro& macro, const std::string& end) {
    const auto outer = std::exchange(reads_, {});
    const auto loops = std::exchange(loops_, 0);
    macro.body = parse_body(end);
    loops_ = loops;
    macro.reads = std::exchange(reads_, outer);
    reads_.insert(macro.reads.begin(), macro.reads.end());
  }

  Statement parse_macro() {
    Macro macro;
    macro.name = take_any_name();
    macro.parameters = parse_parameters();
    parse_macro_body(macro, "endmacro");
    return [macro = std::move(macro)](const ScopePtr& scope, Output& output) {
      scope->set(macro.name, macro.in(scope, output.lost));
      return Flow::on;
    };
  }

  Statement parse_call_block() {
    Macro macro;
    macro.name = "caller";
    if (is_sign("(")) macro.parameters = parse_parameters();
    calls_.clear();
    parse_expression();
    if (calls_.empty()) wrong("'call' needs a call");
    const auto [callee, arguments] = std::move(calls_.back());
    parse_macro_body(macro, "endcall");
    return [callee = callee, arguments = arguments, macro = std::move(macro)](const ScopePtr& scope,
                                                                              Output& output) {
      auto given = arguments.in(scope);
      given.named.emplace_back("caller", macro.in(scope, output.lost));
      output.text += call(callee(scope), given).str();
      return Flow::on;
    };
  }

  Statement parse_generation() {
    marks_answers_ = true;
    auto body = parse_body("endgeneration");
    return [body = std::move(body)](const ScopePtr& scope, Output& output) {
      const auto begin = output.text.size();
      body(inside(scope), output);
      if (output.generated)
        output.generated->push_back({begin, output.text.size()});
      else
        *output.lost = true;
      return Flow::on;
    };
  }

  // Expressions, the loosest bound first

  Expression parse_tuple(bool with_condition = true) {
    std::vector<Expression> parts;
    bool several = false;
    do {
      if (ends_tuple() && several) break;
      parts.push_back(with_condition ? parse_expression() : parse_or());
      several = several || is_sign(",");
    } while (take_sign(","));
    return several ? list_of(std::move(parts), Kind::tuple) : std::move(parts.front());
  }

  bool ends_tuple() const {
    return now().type == Type::close_expression || now().type == Type::close_tag || is_sign(")");
  }

  static Expression list_of(std::vector<Expression> parts, Kind kind) {
    return [parts = std::move(parts), kind](const ScopePtr& scope) {
      Values values;
      for (const auto& part : parts) values.push_back(part(scope));
      return Value::sequence(kind, std::move(values));
    };
  }

  Expression parse_expression() {
    Level level(*this);
    auto value = parse_or();
    for (; take_name("if"); level.step()) {
      auto condition = parse_or();
      auto otherwise = take_name("else") ? parse_expression() : Expression();
      value = [value = std::move(value), condition = std::move(condition),
               otherwise = std::move(otherwise)](const ScopePtr& scope) {
        if (condition(scope).truth()) return value(scope);
        if (otherwise) return otherwise(scope);
        return Value(Undefined{
            "the inline if-expression evaluated to false and no else section was defined."});
      };
    }
    return value;
  }

  Expression parse_or() {
    Level level(*this);
    auto left = parse_and();
    for (; take_name("or"); level.step())
      left = [left = std::move(left), right = parse_and()](const ScopePtr& scope) {
        auto value = left(scope);
        return value.truth() ? value : right(scope);
      };
    return left;
  }

  Expression parse_and() {
    Level level(*this);
    auto left = parse_not();
    for (; take_name("and"); level.step())
      left = [left = std::move(left), right = parse_not()](const ScopePtr& scope) {
        auto value = left(scope);
        return value.truth() ? right(scope) : value;
      };
    return left;
  }

  Expression parse_not() {
    if (!take_name("not")) return parse_comparison();
    const Level level(*this);
    return [value = parse_not()](const ScopePtr& scope) { return Value(!value(scope).truth()); };
  }

  /// "a < b < c" is "a < b and b < c".
  Expression parse_comparison() {
    auto first = parse_sum();
    std::vector<std::pair<std::string, Expression>> rest;
    for (auto sign = take_comparison(); !sign.empty(); sign = take_comparison())
      rest.emplace_back(sign, parse_sum());
    if (rest.empty()) return first;
    return [first = std::move(first), rest = std::move(rest)](const ScopePtr& scope) {
      auto left = first(scope);
      for (const auto& [sign, expression] : rest) {
        auto right = expression(scope);
        if (!holds(sign, left, right)) return Value(false);
        left = std::move(right);
      }
      return Value(true);
    };
  }

  std::string take_comparison() {
    for (const char* sign : {"==", "!=", "<=", ">=", "<", ">"})
      if (take_sign(sign)) return sign;
    if (take_name("in")) return "in";
    if (!is_name("not") || !is(ahead(), Type::name, "in")) return "";
    at_ += 2;
    return "not in";
  }

  static bool holds(const std::string& sign, const Value& left, const Value& right) {
    if (sign == "not in") return !right.contains(left);
    return test(sign)(left, {{right}, {}}).truth();
  }

  template <class Next>
  Expression parse_arithmetic(std::initializer_list<const char*> signs, Next next) {
    Level level(*this);
    auto left = next();
    for (;; level.step()) {
      const auto sign =
          std::find_if(signs.begin(), signs.end(), [&](const char* one) { return is_sign(one); });
      if (sign == signs.end()) return left;
      ++at_;
      left = [left = std::move(left), right = next(),
              sign = std::string(*sign)](const ScopePtr& scope) {
        const auto value = left(scope);
        return arithmetic(sign, value, right(scope));
      };
    }
  }

  Expression parse_sum() {
    return parse_arithmetic({"+", "-"}, [this] { return parse_joined(); });
  }

  Expression parse_joined() {
    std::vector<Expression> parts{parse_product()};
    while (take_sign("~")) parts.push_back(parse_product());
    if (parts.size() == 1) return std::move(parts.front());
    return [parts = std::move(parts)](const ScopePtr& scope) {
      std::string text;
      for (const auto& part : parts) text += part(scope).str();
      return Value(std::move(text));
    };
  }

  Expression parse_product() {
    return parse_arithmetic({"*", "/", "//", "%"}, [this] {
      return parse_arithmetic({"**"}, [this] { return parse_unary(); });
    });
  }

  Expression parse_unary(bool with_filters = true) {
    const Level level(*this);
    const bool minus = is_sign("-");
    if (!minus && !is_sign("+")) {
      auto value = parse_postfix(parse_primary());
      return with_filters ? parse_filters(std::move(value)) : value;
    }
    ++at_;
    auto value = parse_postfix([value = parse_unary(false), minus](const ScopePtr& scope) {
      const auto number = value(scope);
      if (!number.is_number())
        raise("bad operand type for unary {}: '{}'", minus ? '-' : '+', number.type());
      return minus ? arithmetic("-", Value(0), number) : number;
    });
    return with_filters ? parse_filters(std::move(value)) : value;
  }

  static Expression constant(Value value) {
    return [value = std::move(value)](const ScopePtr&) { return value; };
  }

  Expression parse_primary() {
    const auto token = now();
    ++at_;
    switch (token.type) {
      case Type::name: return parse_named(token.text);
      case Type::string: {
        auto text = token.text;
        while (now().type == Type::string) text += tokens_[at_++].text;
        return constant(std::move(text));
      }
      case Type::whole:
        if (token.text.size() > 18) wrong("the number {} is too large", token.text);
        return constant(static_cast<std::int64_t>(std::stoll(token.text)));
      case Type::number: return constant(std::stod(token.text));
      case Type::sign:
        if (token.text == "(") return parse_bracketed();
        if (token.text == "[") return parse_list();
        if (token.text == "{") return parse_dict();
        [[fallthrough]];
      default: --at_; wrong("there is an unexpected \"{}\"", token.text);
    }
  }

  Expression parse_named(const std::string& name) {
    if (name == "true" || name == "True") return constant(true);
    if (name == "false" || name == "False") return constant(false);
    if (name == "none" || name == "None") return constant(None{});
    reads_.insert(name);
    return [name](const ScopePtr& scope) -> Value {
      if (const auto* found = scope->find(name)) return *found;
      if (auto found = global(name)) return *found;
      return Undefined{fmt::format("'{}' is undefined", name)};
    };
  }

  Expression parse_bracketed() {
    if (take_sign(")")) return list_of({}, Kind::tuple);
    auto value = parse_tuple();
    need_sign(")");
    return value;
  }

  Expression parse_list() {
    std::vector<Expression> parts;
    while (!take_sign("]")) {
      if (!parts.empty()) need_sign(",");
      if (take_sign("]")) break;
      parts.push_back(parse_expression());
    }
    return list_of(std::move(parts), Kind::list);
  }

  Expression parse_dict() {
    std::vector<std::pair<Expression, Expression>> items;
    while (!take_sign("}")) {
      if (!items.empty()) need_sign(",");
      if (take_sign("}")) break;
      auto key = parse_expression();
      need_sign(":");
      items.emplace_back(std::move(key), parse_expression());
    }
    return [items = std::move(items)](const ScopePtr& scope) {
      Arguments pairs{{Value::list({})}, {}};
      Values list;
      for (const auto& [key, value] : items) {
        auto name = key(scope);
        list.push_back(Value::sequence(Kind::tuple, {std::move(name), value(scope)}));
      }
      pairs.positional.front() = Value::list(std::move(list));
      return call(*global("dict"), pairs);
    };
  }

  Expression parse_postfix(Expression value) {
    Level level(*this);
    for (;; level.step()) {
      if (take_sign("."))
        value = parse_attribute(std::move(value));
      else if (take_sign("["))
        value = parse_item(std::move(value));
      else if (is_sign("("))
        value = parse_call(std::move(value));
      else
        return value;
    }
  }

  Expression parse_attribute(Expression value) {
    if (now().type == Type::whole && now().text.size() > 18)
      wrong("the number {} is too large", now().text);
    if (now().type == Type::whole)
      return [value = std::move(value),
              place = static_cast<std::int64_t>(std::stoll(tokens_[at_++].text))](
                 const ScopePtr& scope) { return item(value(scope), place); };
    return [value = std::move(value), name = take_any_name()](const ScopePtr& scope) {
      return attribute(value(scope), name);
    };
  }

  Expression parse_item(Expression value) {
    std::array<Expression, 3> parts;
    bool sliced = false;
    for (std::size_t i = 0; i < 3 && !is_sign("]"); ++i) {
      if (!is_sign(":")) parts[i] = parse_expression();
      if (!take_sign(":")) break;
      sliced = true;
    }
    need_sign("]");
    if (sliced)
      return [value = std::move(value), parts = std::move(parts)](const ScopePtr& scope) {
        return slice_of(value(scope), parts, scope);
      };
    if (!parts[0]) wrong("there is nothing between \"[\" and \"]\"");
    return [value = std::move(value), key = std::move(parts[0])](const ScopePtr& scope) {
      const auto of = value(scope);
      return item(of, key(scope));
    };
  }

  Expression parse_call(Expression callee) {
    auto arguments = parse_arguments();
    calls_.emplace_back(callee, arguments);
    return [callee = std::move(callee), arguments = std::move(arguments)](const ScopePtr& scope) {
      const auto function = callee(scope);
      return call(function, arguments.in(scope));
    };
  }

  CallArguments parse_arguments() {
    CallArguments arguments;
    need_sign("(");
    for (bool first = true; !take_sign(")"); first = false) {
      if (!first) need_sign(",");
      if (take_sign(")")) break;
      if (take_sign("*")) {
        arguments.list = parse_expression();
      } else if (take_sign("**")) {
        arguments.dict = parse_expression();
      } else if (now().type == Type::name && is(ahead(), Type::sign, "=")) {
        auto name = take_any_name();
        ++at_;
        arguments.named.emplace_back(std::move(name), parse_expression());
      } else {
        if (!arguments.named.empty() || arguments.list || arguments.dict)
          wrong("an argument without a name follows one with a name");
        arguments.positional.push_back(parse_expression());
      }
    }
    return arguments;
  }

  /// Filters, tests and calls behind a value.
  Expression parse_filters(Expression value) {
    Level level(*this);
    for (;; level.step()) {
      if (take_sign("|"))
        value = parse_filter(std::move(value));
      else if (take_name("is"))
        value = parse_test(std::move(value));
      else if (is_sign("("))
        value = parse_call(std::move(value));
      else
        return value;
    }
  }

  std::string take_dotted_name() {
    auto name = take_any_name();
    while (take_sign(".")) name += "." + take_any_name();
    return name;
  }

  Expression parse_filter(Expression value) {
    auto name = take_dotted_name();
    auto arguments = is_sign("(") ? parse_arguments() : CallArguments();
    return [value = std::move(value), name = std::move(name),
            arguments = std::move(arguments)](const ScopePtr& scope) {
      const auto apply = filter(name);
      if (!apply) raise("No filter named '{}'.", name);
      const auto of = value(scope);
      return apply(of, arguments.in(scope));
    };
  }

  Expression parse_test(Expression value) {
    const bool negated = take_name("not");
    auto name = take_dotted_name();
    CallArguments arguments;
    if (is_sign("("))
      arguments = parse_arguments();
    else if (takes_argument())
      arguments.positional.push_back(parse_postfix(parse_primary()));
    return [value = std::move(value), name = std::move(name), arguments = std::move(arguments),
            negated](const ScopePtr& scope) {
      const auto is = test(name);
      if (!is) raise("No test named '{}'.", name);
      const auto of = value(scope);
      return Value(is(of, arguments.in(scope)).truth() != negated);
    };
  }

  /// Whether what follows a test's name is what it compares with.
  bool takes_argument() const {
    if (now().type == Type::name) {
      if (is_name("is")) wrong("tests cannot be chained with 'is'");
      return !is_name("else") && !is_name("or") && !is_name("and");
    }
    return now().type == Type::string || now().type == Type::whole || now().type == Type::number ||
           is_sign("[") || is_sign("{");
  }

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;  // how many surround the current place
  bool marks_answers_ = false;
  std::set<std::string> reads_;  // names that the current macro reads
  // the last is the outermost of the expression just parsed
  std::vector<std::pair<Expression, CallArguments>> calls_;
};

}  // namespace

struct Template::Program {
  Statement body;
};

Template::Template(std::string_view source) {
  Parser parser(source);
  program_ = std::make_shared<const Program>(Program{parser.parse()});
  marks_answers_ = parser.marks_answers();
}

Rendering Template::render(const Variables& variables) const {
  const auto outer = std::make_shared<Scope>(Scope{nullptr, variables});
  Rendering rendering;
  bool lost = false;
  Output output{{}, &rendering.generated, &lost};
  program_->body(inside(outer), output);
  if (lost)
    raise(
        "a {{% generation %}} block inside a macro, a captured block or a filter is not supported");
  rendering.text = std::move(output.text);
  return rendering;
}

}  // namespace attune::jinja
