#include "run_directory/metrics_reader.hpp"

#include <attune/error.hpp>

#include <fstream>
#include <nlohmann/json.hpp>

#include "run_directory/json_lines.hpp"
#include "run_directory/places.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;

MetricsLines read_metrics(const fs::path& run) {
  const auto log = metrics_file(run);
  MetricsLines lines;
  auto damage = read_newest_lines(log, [&](const nlohmann::json& object) {
    auto line = parse_line(object);
    if (line) lines.newest.push_back(std::move(*line));
    return line.has_value();
  });
  const auto first = read_first_line(log);
  lines.first = parse_line(first);
  const bool is_damaged = !first.is_null() && !lines.first;
  const bool is_counted = damage.lines > 0 && damage.first_byte == 0;
  if (is_damaged && !is_counted) damage = {damage.lines + 1, 0};
  lines.damage = damage.sentence(log);
  return lines;
}

bool is_evaluation(const MetricsLine& line) {
  return line.event == name(Event::evaluated) && line.evaluation;
}

NewestEvaluation find_newest_evaluation(const fs::path& run) {
  const auto log = metrics_file(run);
  const auto mark = fmt::format("\"{}\"", name(Event::evaluated));
  std::ifstream file(log, std::ios::binary);
  NewestEvaluation newest;
  LogDamage damage;
  std::uint64_t byte = 0;
  for (std::string text; std::getline(file, text); byte += text.size() + 1) {
    if (text.find(mark) == std::string::npos) continue;  // most are steps, and a log may be long
    auto line = parse_line(nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false));
    const bool is_cut_off = file.eof();
    if (!line && !is_cut_off) damage.add(byte);
    if (line && is_evaluation(*line)) newest.line = std::move(line);
  }
  newest.damage = damage.sentence(log);
  return newest;
}

void check_metrics_version(const fs::path& run) {
  const auto log = metrics_file(run);
  const auto first = read_first_line(log);
  if (first.is_object()) refuse_newer(first, metrics_format, log.string());
}

}  // namespace attune::run_directory
