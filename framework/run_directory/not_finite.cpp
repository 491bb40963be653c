#include "run_directory/not_finite.hpp"

#include "run_directory/json_lines.hpp"
#include "run_directory/places.hpp"

namespace attune::run_directory {

void note_not_finite(const std::filesystem::path& run, const NotFiniteStep& step) {
  append_line(
      not_finite_file(run),
      {{"step", step.step}, {"what", step.what}, {"split", step.split}, {"samples", step.samples}});
}

NewestNotFinite newest_not_finite(const std::filesystem::path& run) {
  NewestNotFinite newest;
  const auto log = not_finite_file(run);
  const auto damage = read_newest_lines(log, [&](const nlohmann::json& object) {
    const auto step = object.find("step");
    const bool is_line = step != object.end() && step->is_number_integer();
    if (is_line) newest.step = step->get<std::int64_t>();
    return is_line;
  });
  newest.damage = damage.sentence(log);
  return newest;
}

}  // namespace attune::run_directory
