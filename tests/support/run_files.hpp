// A folder for the files of runs, removed at the end of a test.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "core/files.hpp"

namespace attune {

class RunFiles : public testing::Test {
 protected:
  RunFiles() { std::filesystem::create_directories(run_); }
  ~RunFiles() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  std::string text_of(const std::string& name) const { return read_text(folder_ / name); }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("attune-unit-run-" + std::to_string(::getpid()));
  std::filesystem::path run_ = folder_ / "run";
};

}  // namespace attune
