#include "run_directory/metrics_line.hpp"

#include <chrono>
#include <limits>
#include <nlohmann/json.hpp>

#include "run_directory/places.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace {

/// Seconds since 1970.
double unix_seconds_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

template <class T>
void add(nlohmann::ordered_json& line, const char* key, const std::optional<T>& value) {
  if (value) line[key] = *value;
}

void add_unless_0(nlohmann::ordered_json& line, const char* key, std::int64_t value) {
  if (value != 0) line[key] = value;
}

struct WrongValue {};

/// Values of a line by key. Exception for one of another type: WrongValue or nlohmann's.
class Fields {
 public:
  explicit Fields(const nlohmann::json& object) : object_(object) {}

  std::optional<double> number(const char* key) const {
    const auto* value = find(key);
    return value ? std::optional(number_of(*value)) : std::nullopt;
  }

  std::optional<std::int64_t> integer(const char* key) const {
    const auto* value = find(key);
    if (!value) return std::nullopt;
    const bool fits = value->is_number_integer() && *value >= 0 &&
                      *value <= std::numeric_limits<std::int64_t>::max();
    if (!fits) throw WrongValue();
    return value->get<std::int64_t>();
  }

  std::int64_t needed_integer(const char* key) const {
    const auto value = integer(key);
    if (!value) throw WrongValue();
    return *value;
  }

  std::string text(const char* key) const {
    const auto* value = find(key);
    return value ? value->get<std::string>() : "";
  }

  std::optional<MetricsLine::Values> values(const char* key) const {
    const auto* object = find(key);
    if (!object) return std::nullopt;
    MetricsLine::Values values;
    for (const auto& [name, value] : object->get_ref<const nlohmann::json::object_t&>())
      values[name] = number_of(value);
    return values;
  }

  std::optional<std::vector<Metric>> metrics(const char* key) const {
    const auto* object = find(key);
    return object ? std::optional(metrics_of_json(object->dump())) : std::nullopt;
  }

 private:
  const nlohmann::json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }

  const nlohmann::json& object_;
};

MetricsLine read_line(const nlohmann::json& object) {
  const Fields fields(object);
  MetricsLine line;
  line.event = object.at("event").get<std::string>();
  line.step = fields.needed_integer("step");
  line.epoch = fields.integer("epoch").value_or(0);
  line.seconds = fields.number("seconds").value_or(0);
  line.unix_seconds = fields.number("unix_seconds").value_or(0);
  line.steps = fields.integer("steps");
  line.parameters = fields.integer("parameters");
  line.trainable_parameters = fields.integer("trainable_parameters");
  line.declared = fields.metrics("metrics");
  line.loss = fields.number("loss");
  line.learning_rate = fields.number("learning_rate");
  line.grad_norm = fields.number("grad_norm");
  line.tokens_per_second = fields.number("tokens_per_second");
  line.tokens = fields.integer("tokens");
  line.scalars = fields.values("scalars").value_or(MetricsLine::Values{});
  line.skipped_steps = fields.integer("skipped_steps").value_or(0);
  line.samples_without_target = fields.integer("samples_without_target").value_or(0);
  line.saved_step = fields.integer("saved_step");
  line.evaluation = fields.values("evaluation");
  line.stop_reason = fields.text("stop_reason");
  return line;
}

}  // namespace

std::string MetricsLine::text() const {
  nlohmann::ordered_json line{{"event", event},
                              {"step", step},
                              {"epoch", epoch},
                              {"seconds", seconds},
                              {"unix_seconds", unix_seconds}};
  if (event == name(Event::run_begin)) add_format(line, metrics_format);
  add(line, "steps", steps);
  add(line, "parameters", parameters);
  add(line, "trainable_parameters", trainable_parameters);
  if (declared) line["metrics"] = nlohmann::ordered_json::parse(metrics_to_json(*declared));
  add(line, "loss", loss);
  add(line, "learning_rate", learning_rate);
  add(line, "grad_norm", grad_norm);
  add(line, "tokens", tokens);
  add(line, "tokens_per_second", tokens_per_second);
  if (!scalars.empty()) line["scalars"] = scalars;
  add_unless_0(line, "skipped_steps", skipped_steps);
  add_unless_0(line, "samples_without_target", samples_without_target);
  add(line, "saved_step", saved_step);
  add(line, "evaluation", evaluation);
  if (!stop_reason.empty()) line["stop_reason"] = stop_reason;
  return json_line(line);
}

bool is_logged(Event event) {
  return event != Event::step_begin && event != Event::gradients_ready;
}

MetricsLine line_of(Event event, const Run& run) {
  MetricsLine line;
  line.event = name(event);
  line.step = run.step;
  line.epoch = run.epoch;
  line.seconds = run.seconds;
  line.unix_seconds = unix_seconds_now();
  if (event == Event::run_begin) {
    line.steps = run.steps;
    line.parameters = run.parameters;
    line.trainable_parameters = run.trainable_parameters;
    line.declared = run.declared;
  }
  if (event == Event::step_end) {
    line.loss = run.loss;
    line.learning_rate = run.learning_rate;
    line.grad_norm = run.grad_norm;
    line.tokens = run.step_tokens;
    line.tokens_per_second = run.tokens_per_second;
    line.scalars = run.scalars;
    line.skipped_steps = run.skipped_steps;
  }
  if (event == Event::step_end || event == Event::run_end)
    line.samples_without_target = run.samples_without_target;
  if (event == Event::checkpoint_saved) line.saved_step = run.saved_step;
  if (event == Event::run_begin || event == Event::evaluated) line.evaluation = run.metrics;
  if (event == Event::run_end) line.stop_reason = run.stop_reason;
  return line;
}

std::optional<MetricsLine> parse_line(const nlohmann::json& object) {
  if (!object.is_object()) return std::nullopt;
  refuse_newer(object, metrics_format, names::metrics);
  if (fit_of(object, metrics_format) != Fit::fits) return std::nullopt;
  try {
    return read_line(object);
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const WrongValue&) {
    return std::nullopt;
  }
}

}  // namespace attune::run_directory
