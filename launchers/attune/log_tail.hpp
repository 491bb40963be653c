// A log as it grows.
#pragma once
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

namespace attune::program {

/// Prints what a log has gained since the last call, which is all of it at first. A log that is not
/// there yet has gained nothing.
class LogTail {
 public:
  explicit LogTail(std::filesystem::path log) : log_(std::move(log)) {}

  const std::filesystem::path& log() const { return log_; }

  void print() {
    std::ifstream file(log_, std::ios::binary);
    file.seekg(printed_);
    const std::string more{std::istreambuf_iterator<char>(file), {}};
    std::cout << more << std::flush;
    printed_ += static_cast<std::streamoff>(more.size());
  }

 private:
  std::filesystem::path log_;
  std::streamoff printed_ = 0;
};

}  // namespace attune::program
