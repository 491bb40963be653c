#include "run_directory/jobs.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "core/files.hpp"
#include "core/lines.hpp"
#include "run_directory/places.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// "12" or "12_3".
bool is_job_id(const std::string& text) {
  const auto parts = pieces_of(text, '_');
  const auto is_number = [](const std::string& part) {
    return !part.empty() && std::ranges::all_of(part, is_digit);
  };
  return parts.size() <= 2 && std::ranges::all_of(parts, is_number);
}

}  // namespace

JobList read_jobs(const fs::path& directory) {
  const auto file = directory / names::jobs;
  JobList list;
  if (!fs::exists(file)) return list;
  std::size_t others = 0;
  for (auto& line : lines_of(read_text(file)))
    if (is_job_id(line))
      list.ids.push_back(std::move(line));
    else
      ++others;
  if (others > 0)
    list.problem = fmt::format("{} is damaged ({} line{} not a job id)", names::jobs, others,
                               others == 1 ? " is" : "s are");
  return list;
}

std::vector<std::string> submitted_jobs(const fs::path& directory) {
  auto list = read_jobs(directory);
  if (!list.problem.empty())
    fail("{}: {}: remove them from {}", directory.string(), list.problem,
         (directory / names::jobs).string());
  return std::move(list.ids);
}

void note_submitted(const fs::path& directory, const std::string& id) {
  const auto file = directory / names::jobs;
  std::ofstream jobs(file, std::ios::app);
  jobs << id << "\n" << std::flush;
  if (!jobs)
    fail("{}: cannot be written, but job {} is queued: add its id to the file, or run `scancel {}`",
         file.string(), id, id);
}

void prepare_directory(const fs::path& directory, const std::string& text) {
  fs::create_directories(directory);
  for (const char* counted : {names::attempts, names::failures, names::launches})
    fs::remove(directory / counted);
  write_text(run_file(directory), text);
}

std::string failed_launches(const fs::path& directory) {
  std::ifstream file(directory / names::launches);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto launches = lines_of(text);
  if (launches.empty()) return "";
  const auto nodes = pieces_of(launches.back(), ' ').back();
  const auto where = nodes == "unknown" ? "" : " on " + nodes;
  if (launches.size() == 1) return "the launch failed" + where;
  return fmt::format("the launch failed {} times in a row{}", launches.size(), where);
}

}  // namespace attune::run_directory
