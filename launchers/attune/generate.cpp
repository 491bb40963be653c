// attune generate: answers of a model, or of base and tuned side by side.
#include "nn/generation_defaults.hpp"

#include <attune/rejected.hpp>
#include <torch/torch.h>

#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "command.hpp"
#include "device.hpp"
#include "core/files.hpp"
#include "core/json_text.hpp"
#include "core/names.hpp"
#include "core/stopwatch.hpp"
#include "ranks.hpp"
#include "registry/loader.hpp"
#include "run_directory/places.hpp"
#include "text/unicode.hpp"
#include "train/base_evaluation.hpp"
#include "tuned_run.hpp"
#include "weights/chat_template_files.hpp"
#include "weights/describe.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

/// "temperature 0.7, top_k 20": the limits of sampling that are not neutral.
std::string sampling_text(const nn::GenerateOptions& o) {
  auto text = fmt::format("temperature {}", o.temperature);
  if (o.top_k > 0) text += fmt::format(", top_k {}", o.top_k);
  if (o.top_p < 1) text += fmt::format(", top_p {}", o.top_p);
  if (o.min_p > 0) text += fmt::format(", min_p {}", o.min_p);
  return text;
}

/// The model's own defaults, and what the command line says instead. Says on stderr what of the
/// defaults is used and what is ignored.
nn::GenerateOptions options_for(const ModelFiles& files, const Tokenizer& tokenizer,
                                const options::variables_map& values) {
  auto [chosen, ignored, has_length] = nn::generation_defaults(files, tokenizer);
  if (!has_length) chosen.max_tokens = 64;
  if (values.count("max-tokens")) {
    chosen.max_tokens = values["max-tokens"].as<std::int64_t>();
    chosen.max_length = 0;
  }
  const bool samples_by_default = chosen.temperature > 0 && !values.count("temperature");
  if (values.count("temperature")) chosen.temperature = values["temperature"].as<double>();
  if (values.count("top-p")) chosen.top_p = values["top-p"].as<double>();
  if (values.count("top-k")) chosen.top_k = values["top-k"].as<std::int64_t>();
  if (values.count("repetition-penalty"))
    chosen.repetition_penalty = values["repetition-penalty"].as<double>();
  chosen.seed = values["seed"].as<std::uint64_t>();
  if (samples_by_default)
    fmt::print(stderr,
               "sampling with the model's defaults: {} (--temperature 0 for greedy decoding)\n",
               sampling_text(chosen));
  if (!ignored.empty())
    fmt::print(stderr, "ignored generation defaults of the model: {}\n", joined(ignored));
  return chosen;
}

/// How prompts become tokens, in a chat template where there is one, and how answers are chosen.
class Asking {
 public:
  Asking(const ModelFiles& files, const ChatSource& source, const Tokenizer& tokenizer,
         const options::variables_map& values)
      : tokenizer_(tokenizer) {
    options = options_for(files, tokenizer, values);
    if (values["raw"].as<bool>() || source.jinja.empty()) return;
    chat_ = ChatTemplate::from_jinja(source);
    if (values.count("system")) before_.push_back({"system", values["system"].as<std::string>()});
    if (const auto end = tokenizer.id(chat_->end_of_turn())) options.stop.push_back(*end);
  }

  nn::Tokens tokens_of(const std::string& prompt) const {
    if (!chat_) return tokenizer_.encode(prompt);
    auto messages = before_;
    messages.push_back({"user", prompt});
    try {
      return chat_->prompt(messages, tokenizer_);
    } catch (const Rejected& reason) {
      fail("{}; change the prompt, or give --raw", reason.what());
    }
  }

  nn::GenerateOptions options;

 private:
  const Tokenizer& tokenizer_;
  std::optional<ChatTemplate> chat_;  // none: prompts are as they are
  std::vector<Message> before_;
};

/// Bytes at the end that may be the beginning of a character still to come.
std::size_t unfinished(const std::string& text) {
  std::size_t back = 0;
  while (back < 3 && back < text.size() &&
         static_cast<unsigned char>(text[text.size() - back - 1]) >= 0x80)
    ++back;
  return back;
}

/// Prints token by token. A token may end inside a character: what is printed is the text so far,
/// as far as it is whole.
void answer(const std::string& title, Model& model, const Tokenizer& tokenizer,
            const Asking& asking, const std::string& prompt) {
  std::cout << title << std::flush;
  nn::Tokens so_far;
  std::size_t shown = 0;
  const auto show = [&](bool all) {
    auto raw = tokenizer.decode(so_far);
    // byte tokens of which some are still to come
    while (!all && raw.ends_with("\uFFFD")) raw.resize(raw.size() - 3);
    if (!all) raw.resize(raw.size() - unfinished(raw));
    const auto text = text::valid_utf8(raw);
    if (text.size() > shown) {
      std::cout << text.substr(shown) << std::flush;
      shown = text.size();
    }
  };
  nn::generate(model, asking.tokens_of(prompt), asking.options, [&](std::int32_t token) {
    so_far.push_back(token);
    show(false);
    return true;
  });
  show(true);
  std::cout << "\n";
}

/// The text "prompt" of a line of JSON Lines.
std::string prompt_of(const std::string& file, std::int64_t number, std::string line) {
  replace_lone_surrogates(line);
  const auto row = nlohmann::json::parse(line, nullptr, false);
  if (!row.is_object() || !row.contains("prompt") || !row["prompt"].is_string())
    fail(
        "{}:{}: is not a JSON object with a text \"prompt\"; write {{\"prompt\": \"...\"}} in each "
        "line",
        file, number);
  return row["prompt"];
}

/// Of JSON Lines with "prompt", or of a text with one prompt a line.
std::vector<std::string> read_prompts(const std::string& file) {
  std::vector<std::string> prompts;
  std::istringstream lines(text::valid_utf8(read_lines(file)));
  std::int64_t number = 0;
  for (std::string line; ++number, std::getline(lines, line);) {
    if (line.find_first_not_of(" \t") == std::string::npos) continue;
    prompts.push_back(file.ends_with(".jsonl") ? prompt_of(file, number, line) : line);
  }
  if (prompts.empty())
    fail("{}: contains no prompt; write one per line, or JSON Lines with \"prompt\"", file);
  return prompts;
}

/// The answers of one model to all prompts, so many at a time. Says on stderr how fast that was.
std::vector<std::string> answers_to(const std::vector<std::string>& prompts,
                                    const std::string& whose, Model& model,
                                    const Tokenizer& tokenizer, const Asking& asking,
                                    std::size_t batch) {
  const Stopwatch watch;
  std::vector<std::string> answers;
  std::size_t tokens = 0;
  for (std::size_t first = 0; first < prompts.size(); first += batch) {
    std::vector<nn::Tokens> asked;
    for (auto i = first; i < std::min(prompts.size(), first + batch); ++i)
      asked.push_back(asking.tokens_of(prompts[i]));
    for (const auto& answer : nn::generate_each(model, asked, asking.options)) {
      answers.push_back(text::valid_utf8(tokenizer.decode(answer)));
      tokens += answer.size();
    }
  }
  fmt::print(stderr, "{}: {} answers, {} tokens, {:.1f} tokens/s\n", whose, answers.size(), tokens,
             static_cast<double>(tokens) / watch.seconds());
  return answers;
}

// whose, and to each prompt
using Answers = std::vector<std::pair<std::string, std::vector<std::string>>>;

/// A JSON object a line, for standard output or a file.
void write_answers(const std::vector<std::string>& prompts, const Answers& answers,
                   const std::string& output) {
  std::string text;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    nlohmann::ordered_json row{{"prompt", prompts[i]}};
    for (const auto& [whose, all] : answers) row[whose] = all[i];
    text += row.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  }
  if (output.empty())
    std::cout << text << std::flush;
  else
    write_text(output, text);
}

/// What is asked of a model, or of two: one prompt, answered as it comes, or a file of them.
class Questions {
 public:
  Questions(const ModelFiles& files, const ChatSource& chat, const Tokenizer& tokenizer,
            const options::variables_map& values)
      : tokenizer_(tokenizer),
        asking_(files, chat, tokenizer, values),
        batch_(static_cast<std::size_t>(
            std::max<std::int64_t>(1, values["batch"].as<std::int64_t>()))),
        output_(values["output"].as<std::string>()) {
    if (values.count("prompt") == values.count("prompts"))
      fail("attune generate: give either --prompt TEXT or --prompts FILE");
    if (values.count("prompt"))
      prompt_ = values["prompt"].as<std::string>();
    else
      prompts_ = read_prompts(values["prompts"].as<std::string>());
  }

  void put_to(Model& model, const std::string& whose) {
    asking_.options.base_alone = whose == "base";
    if (prompt_)
      answer(whose == "answer" ? "" : fmt::format("{:<7}", whose + ":"), model, tokenizer_, asking_,
             *prompt_);
    else
      answers_.emplace_back(whose, answers_to(prompts_, whose, model, tokenizer_, asking_, batch_));
  }
  void finish() const {
    if (!prompt_) write_answers(prompts_, answers_, output_);
  }

 private:
  const Tokenizer& tokenizer_;
  Asking asking_;
  std::optional<std::string> prompt_;
  std::vector<std::string> prompts_;
  std::size_t batch_;
  std::string output_;
  Answers answers_;
};

void from_run(const std::string& path, const options::variables_map& values, const Comm& comm) {
  std::vector<std::string> overrides;
  if (values.count("device"))
    overrides.push_back("parallel.device=" + values["device"].as<std::string>());
  auto run = open_tuned_run(path, values["checkpoint"].as<std::string>(), comm, overrides);
  refuse_idle_gpus(run.opened.config, comm);
  if (run.session.model->spec().task != Task::next_token)
    fail(
        "{}: its model does not generate text; `attune evaluate` measures it, and `attune export` "
        "writes it for transformers",
        path);
  const Tokenizer tokenizer(tokenizer_of(*run.session.files));
  const auto trained = run.session.data->chat().source;  // empty in files that are older than it
  Questions questions(*run.session.files,
                      trained.jinja.empty() ? chat_template_of(run.session.files->path) : trained,
                      tokenizer, values);
  {
    const train::UntrainedBase base(run.session);
    questions.put_to(*run.session.model, "base");
  }
  run.load_tuned();
  questions.put_to(*run.session.model, "tuned");
  questions.finish();
}

void from_model(const std::string& path, const options::variables_map& values, const Comm& comm) {
  const auto waiting = watch_waiting(place_ranks({}, comm), comm);
  Registry registry;
  load_plugins(registry, default_plugin_places());
  auto files = ModelFiles::open(path);
  check_architecture(files, registry);
  const auto& entry = registry.find(Kind::model, files.config["model_type"]);
  ModelContext context{files.config, *files.weights, {}};
  const auto model = std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context));
  if (model->spec().task != Task::next_token)
    fail("{}: a model of type '{}' does not generate text", path, model->spec().family);
  const Tokenizer tokenizer(tokenizer_of(files));
  Questions questions(files, chat_template_of(files.path), tokenizer, values);
  questions.put_to(*model, "answer");
  questions.finish();
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("source", options::value<std::string>()->required(),
                            "run directory or model")("prompt", options::value<std::string>(),
                                                      "prompt text")(
      "prompts", options::value<std::string>(),
      "file of prompts, used instead of --prompt: one per line, or JSON Lines with \"prompt\"; "
      "answers are batched and written as JSON Lines")(
      "output", options::value<std::string>()->default_value("", ""),
      "output file for the answers to --prompts; default: standard output")(
      "batch", options::value<std::int64_t>()->default_value(16),
      "number of prompts of --prompts that are answered at a time")(
      "system", options::value<std::string>(), "system message")(
      "max-tokens", options::value<std::int64_t>(),
      "maximum answer length in tokens; default: the model's setting, else 64")(
      "temperature", options::value<double>(),
      "sampling temperature; 0: greedy decoding; default: the model's setting, else 0")(
      "top-p", options::value<double>(),
      "cumulative probability of the tokens to sample from; default: the model's setting, else 1")(
      "top-k", options::value<std::int64_t>(),
      "number of most likely tokens to sample from; 0: all; default: the model's setting, else 50 "
      "as in transformers")("repetition-penalty", options::value<double>(),
                            "penalty that lowers the logits of tokens seen so far; 1: none; "
                            "default: the model's setting, else 1")(
      "seed", options::value<std::uint64_t>()->default_value(0), "random seed of sampling")(
      "raw", options::bool_switch(), "continue the prompt verbatim, without the chat template")(
      "checkpoint", options::value<std::string>()->default_value("latest"),
      "checkpoint of the run: latest, best, or a step")(
      "device", options::value<std::string>(),
      "device of a run's model, such as cpu; default: the run's parallel.device");
  const auto values = parse(generate_command, arguments, description, {{"source", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    if (comm.size() > 1) fail("generate runs on one rank; start it without mpirun");
    const auto source = (*values)["source"].as<std::string>();
    if (run_directory::is_run_directory(source))
      from_run(source, *values, comm);
    else
      from_model(source, *values, comm);
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command generate_command{
    "generate", "RUN_DIR|MODEL --prompt TEXT|--prompts FILE [--max-tokens N] [--temperature T]",
    "answers one prompt or a file of prompts; for a run, shows base and tuned model side by side",
    run};

}  // namespace attune::program
