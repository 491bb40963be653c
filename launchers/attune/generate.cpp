// attune generate: answers of a model, or of base and tuned side by side.
#include "nn/generate.hpp"

#include <torch/torch.h>

#include <iostream>

#include "command.hpp"
#include "ranks.hpp"
#include "text/unicode.hpp"
#include "tuned_run.hpp"
#include "weights/describe.hpp"

namespace attune::program {
namespace {

namespace options = boost::program_options;

struct Question {
  std::vector<std::int32_t> tokens;
  nn::GenerateOptions options;
};

/// The prompt in the model's own chat template; as it is when the model has none.
Question ask(const ModelFiles& files, const Tokenizer& tokenizer, const options::variables_map& values) {
  Question question;
  question.options.max_tokens = values["max-tokens"].as<std::int64_t>();
  question.options.temperature = values["temperature"].as<double>();
  question.options.top_p = values["top-p"].as<double>();
  question.options.seed = values["seed"].as<std::uint64_t>();
  if (files.config.contains("eos_token_id") && files.config["eos_token_id"].is_number_integer()) question.options.stop.push_back(files.config["eos_token_id"]);

  const auto prompt = values["prompt"].as<std::string>();
  if (values["raw"].as<bool>() || files.chat_template.empty()) {
    question.tokens = tokenizer.encode(prompt);
    return question;
  }
  const auto chat = ChatTemplate::recognise(files.chat_template);
  std::vector<Message> messages;
  if (values.count("system")) messages.push_back({"system", values["system"].as<std::string>()});
  messages.push_back({"user", prompt});
  question.tokens = chat.prompt(messages, tokenizer);
  if (const auto end = tokenizer.id(chat.end_of_turn())) question.options.stop.push_back(*end);
  return question;
}

/// Bytes at the end that may be the beginning of a character still to come.
std::size_t unfinished(const std::string& text) {
  std::size_t back = 0;
  while (back < 3 && back < text.size() && static_cast<unsigned char>(text[text.size() - back - 1]) >= 0x80) ++back;
  return back;
}

/// Prints token by token. A token may end inside a character: what is printed is the text so far, as far as it is whole.
void answer(const std::string& title, Model& model, const Tokenizer& tokenizer, const Question& question) {
  model.module().eval();
  std::cout << title << std::flush;
  std::vector<std::int32_t> so_far;
  std::size_t shown = 0;
  const auto show = [&](bool all) {
    auto raw = tokenizer.decode(so_far);
    while (!all && raw.ends_with("\uFFFD")) raw.resize(raw.size() - 3);  // byte tokens of which some are still to come
    if (!all) raw.resize(raw.size() - unfinished(raw));
    const auto text = text::valid_utf8(raw);
    if (text.size() > shown) std::cout << text.substr(shown) << std::flush, shown = text.size();
  };
  nn::generate(model, question.tokens, question.options, [&](std::int32_t token) {
    so_far.push_back(token);
    show(false);
    return true;
  });
  show(true);
  std::cout << "\n";
}

void from_run(const std::string& path, const options::variables_map& values, const Comm& comm) {
  auto run = open_tuned_run(path, values["checkpoint"].as<std::string>(), comm);
  const Tokenizer tokenizer(run.session.files->tokenizer);
  const auto question = ask(*run.session.files, tokenizer, values);
  {
    const BaseAlone base(*run.session.model);
    answer("base:  ", *run.session.model, tokenizer, question);
  }
  run.load_tuned();
  answer("tuned: ", *run.session.model, tokenizer, question);
}

void from_model(const std::string& path, const options::variables_map& values) {
  Registry registry;
  load_plugins(registry, default_plugin_places());
  auto files = ModelFiles::open(path);
  if (files.tokenizer.is_null()) fail("{}: has no tokenizer, so it cannot read a prompt; put tokenizer.json beside it", path);
  check_architecture(files, registry.names(Kind::model));
  const auto& entry = registry.find(Kind::model, files.config["model_type"]);
  ModelContext context{files.config, *files.weights, {}};
  const auto model = std::static_pointer_cast<Model>(entry.build(entry.defaults().get(), &context));
  if (model->spec().task != Task::next_token) fail("{}: a model of type '{}' does not generate text", path, model->spec().family);
  const Tokenizer tokenizer(files.tokenizer);
  answer("", *model, tokenizer, ask(files, tokenizer, values));
}

int run(const std::vector<std::string>& arguments) {
  options::options_description description;
  description.add_options()("source", options::value<std::string>()->required(), "run directory or model")("prompt", options::value<std::string>()->required(), "what is asked")(
      "system", options::value<std::string>(), "system message")("max-tokens", options::value<std::int64_t>()->default_value(64), "longest answer")(
      "temperature", options::value<double>()->default_value(0), "0: the likeliest token each time")("top-p", options::value<double>()->default_value(1), "share of probability to sample from")(
      "seed", options::value<std::uint64_t>()->default_value(0), "of sampling")("raw", options::bool_switch(), "continue the prompt as it is, without the chat template")("checkpoint", options::value<std::string>()->default_value("latest"), "of a run: latest, best, or a step");
  const auto values = parse(generate_command, arguments, description, {{"source", 1}});
  if (!values) return static_cast<int>(ExitCode::done);
  return on_ranks([&](const Comm& comm) {
    if (comm.size() > 1) fail("generate runs on one rank; start it without mpirun");
    train::set_threads(comm);
    const auto source = (*values)["source"].as<std::string>();
    if (is_run_directory(source)) from_run(source, *values, comm);
    else from_model(source, *values);
    return static_cast<int>(ExitCode::done);
  });
}

}  // namespace

const Command generate_command{"generate", "RUN_DIR|MODEL --prompt TEXT [--max-tokens N] [--temperature T]", "answers a prompt; for a run, base and tuned side by side", run};

}  // namespace attune::program
