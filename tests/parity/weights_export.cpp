// weights_export MODEL FOLDER: opens a model, prints what it holds and writes it as a Hugging Face folder.
#include <attune/error.hpp>

#include <cstdio>

#include "weights/describe.hpp"
#include "weights/model_files.hpp"

int main(int argc, char** argv) try {
  if (argc != 3) attune::fail("usage: weights_export MODEL FOLDER");
  const auto files = attune::ModelFiles::open(argv[1]);
  std::fputs(attune::describe_model(files).c_str(), stdout);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& info : files.weights->tensors()) tensors.emplace_back(info.name, files.weights->read(info.name));
  attune::export_model_folder(argv[2], files.config, files.tokenizer, files.chat_template, tensors, files.generation);
} catch (const attune::Error& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return static_cast<int>(attune::ExitCode::user_mistake);
}
