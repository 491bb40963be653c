#include "run_places.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <system_error>

#include "core/names.hpp"
#include "run_directory/places.hpp"
#include "sweep/plan.hpp"

namespace attune::program {
namespace {

namespace fs = std::filesystem;

/// What cannot be looked into may be one: its row says why nothing is known of it.
bool may_be_run(const fs::path& path) {
  std::error_code problem;
  const bool is_there = fs::exists(run_directory::run_file(path), problem);
  return is_there || problem == std::errc::permission_denied || problem == std::errc::io_error;
}

/// Entries of a folder that may be runs and whose name begins so.
std::vector<fs::path> runs_inside(const fs::path& folder, const std::string& start = "") {
  std::vector<fs::path> runs;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().filename().string().starts_with(start) && may_be_run(entry.path()))
      runs.push_back(entry.path());
  std::sort(runs.begin(), runs.end(), [](const fs::path& a, const fs::path& b) {
    return natural_less(a.string(), b.string());
  });
  return runs;
}

bool is_number(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), ::isdigit);
}

/// runs/seeds-0, runs/seeds-1, ... of runs/seeds.
std::vector<fs::path> elements_of(const fs::path& array) {
  const auto folder = array.has_parent_path() ? array.parent_path() : fs::path(".");
  const auto start = array.filename().string() + "-";
  auto runs = runs_inside(folder, start);
  std::erase_if(runs, [&](const fs::path& run) {
    return !is_number(run.filename().string().substr(start.size()));
  });
  return runs;
}

fs::path directory_of_sweep(const fs::path& file) {
  const auto document = config::Document::parse(file);
  if (!document.root.contains("run"))
    fail("{}: is not a sweep file; name a run directory, an array, a sweep or a folder of runs",
         file.string());
  return sweep::read_sweep(document).options.directory();
}

RunPlace folder_of_runs(const fs::path& folder, RunPlace::Kind kind) {
  RunPlace place{kind, folder, runs_inside(folder)};
  std::error_code problem;
  const fs::directory_iterator readable(folder, problem);
  if (problem) place.runs = {folder};  // its row says why
  if (place.runs.empty()) fail("{}: is not a run directory and contains none", folder.string());
  return place;
}

}  // namespace

RunPlace find_runs(const fs::path& given) {
  std::error_code problem;
  const auto status = fs::status(given, problem);
  if (fs::is_regular_file(status))
    return folder_of_runs(directory_of_sweep(given), RunPlace::Kind::sweep);
  if (may_be_run(given)) return {RunPlace::Kind::run, given, {given}};
  if (fs::is_directory(status)) {
    const bool is_sweep = fs::exists(given / "sweep.toml", problem);
    return folder_of_runs(given, is_sweep ? RunPlace::Kind::sweep : RunPlace::Kind::folder);
  }
  const auto bare = given.has_filename() ? given : given.parent_path();
  if (auto elements = elements_of(bare); !elements.empty())
    return {RunPlace::Kind::array, bare, std::move(elements)};
  fail("{}: there is no such run directory", given.string());
}

}  // namespace attune::program
