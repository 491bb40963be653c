#include "run_directory/json_lines.hpp"

#include <attune/error.hpp>

#include <fstream>

#include "core/tail.hpp"
#include "run_directory/schema.hpp"

namespace attune::run_directory {
namespace fs = std::filesystem;
using nlohmann::json;
namespace {

constexpr std::uint64_t first_tail_bytes = 64 << 10;  // some hundred steps
constexpr std::uint64_t most_tail_bytes = 64 << 20;
constexpr std::size_t most_line_bytes = 1 << 20;

json parsed(std::string_view line) {
  return json::parse(line, nullptr, /*allow_exceptions=*/false);
}

/// Whether a line without a line feed may be the beginning of one. A crash leaves zero bytes;
/// nobody writes them.
bool may_be_cut_off(std::string_view line) { return line.find('\0') == std::string_view::npos; }

/// The lines of a part of a log, the first of which may be cut off, unless the log begins there.
class Lines {
 public:
  explicit Lines(const Tail& tail) : tail_(tail), rest_(tail.text) {
    if (!tail.is_whole_file()) next();
  }

  bool is_empty() const { return rest_.empty(); }
  std::uint64_t byte() const { return tail_.begin + (tail_.text.size() - rest_.size()); }
  /// Of the one that next() gave: whether its line feed is there.
  bool is_ended() const { return is_ended_; }

  std::string_view next() {
    const auto end = rest_.find('\n');
    is_ended_ = end != std::string_view::npos;
    const auto line = rest_.substr(0, end);
    rest_.remove_prefix(is_ended_ ? end + 1 : rest_.size());
    return line;
  }

 private:
  const Tail& tail_;
  std::string_view rest_;
  bool is_ended_ = false;
};

/// Returns whether one was taken.
bool take_lines(const Tail& tail, const TakeObject& take, LogDamage& damage) {
  bool any = false;
  for (Lines lines(tail); !lines.is_empty();) {
    const auto byte = lines.byte();
    const auto line = lines.next();
    if (line.empty()) continue;
    const auto object = parsed(line);
    const bool is_taken = object.is_object() && take(object);
    any = any || is_taken;
    const bool is_cut_off = !lines.is_ended() && object.is_discarded() && may_be_cut_off(line);
    if (!is_taken && !is_cut_off) damage.add(byte);
  }
  return any;
}

}  // namespace

void LogDamage::add(std::uint64_t byte) {
  if (lines++ == 0) first_byte = byte;
}

std::string LogDamage::sentence(const fs::path& log) const {
  if (lines == 0) return "";
  return fmt::format("{} is damaged at byte {} ({} line{} left out)", log.filename().string(),
                     first_byte, lines, lines == 1 ? " is" : "s are");
}

LogDamage read_newest_lines(const fs::path& log, const TakeObject& take) {
  for (auto bytes = first_tail_bytes;; bytes *= 8) {
    const auto tail = read_tail(log, bytes);
    LogDamage damage;
    if (take_lines(tail, take, damage) || tail.is_whole_file() || bytes >= most_tail_bytes)
      return damage;
  }
}

json read_first_line(const fs::path& log) {
  std::ifstream file(log, std::ios::binary);
  std::string text(most_line_bytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.empty()) return nullptr;
  const auto end = text.find('\n');
  const auto line = std::string_view(text).substr(0, end);
  auto object = parsed(line);
  const bool is_cut_off = end == std::string::npos && object.is_discarded() && may_be_cut_off(line);
  return is_cut_off ? json(nullptr) : object;
}

void append_line(const fs::path& log, const nlohmann::ordered_json& object) {
  end_last_line(log);
  std::ofstream file(log, std::ios::binary | std::ios::app);
  file << json_line(object) << std::flush;
  if (!file) fail("{}: cannot be written; check for a full disk", log.string());
}

void end_last_line(const fs::path& log) {
  for (;;) {
    const auto tail = read_tail(log, most_line_bytes);
    const auto feed = tail.text.rfind('\n');
    const auto begin = feed == std::string::npos ? 0 : feed + 1;
    const auto rest = std::string_view(tail.text).substr(begin);
    if (rest.empty()) return;
    if (parsed(rest).is_object())
      std::ofstream(log, std::ios::binary | std::ios::app) << "\n";
    else
      fs::resize_file(log, tail.begin + begin);
  }
}

}  // namespace attune::run_directory
