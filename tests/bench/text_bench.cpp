// text_bench TOKENIZER.json RECORDS.jsonl THREADS: seconds to encode the texts of all records, best
// of five, and how many tokens they are.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "attune/tokenizer.hpp"
#include "core/files.hpp"

namespace {

std::vector<std::string> read_texts(const std::filesystem::path& records) {
  std::vector<std::string> texts;
  std::ifstream lines(records);
  for (std::string line; std::getline(lines, line);)
    texts.push_back(nlohmann::json::parse(line).at("text"));
  return texts;
}

std::size_t encode(const attune::Tokenizer& tokenizer, const std::vector<std::string>& texts,
                   int threads) {
  std::atomic<std::size_t> next = 0;
  std::atomic<std::size_t> tokens = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < texts.size(); i = next++)
      tokens += tokenizer.encode(texts[i]).size();
  };
  std::vector<std::jthread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(work);
  work();
  others.clear();
  return tokens;
}

}  // namespace

int main(int, char** arguments) {
  const attune::Tokenizer tokenizer(nlohmann::json::parse(attune::read_text(arguments[1])));
  const auto texts = read_texts(arguments[2]);
  double best = 1e9;
  std::size_t tokens = 0;
  for (int i = 0; i < 5; ++i) {
    const auto start = std::chrono::steady_clock::now();
    tokens = encode(tokenizer, texts, std::stoi(arguments[3]));
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  fmt::print("{} {}\n", best, tokens);
}
