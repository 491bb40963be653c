#include "prepare/ledger.hpp"

#include <nlohmann/json.hpp>
#include <numeric>

#include "core/names.hpp"

namespace attune {
using nlohmann::json;
namespace {

constexpr std::size_t kept_examples = 3;
constexpr std::size_t listed_bytes = 400;  // of a record's text

void count(Tallies& tallies, const std::string& reason, const std::string& example,
           std::int64_t by) {
  auto& tally = tallies[reason];
  tally.count += by;
  if (tally.examples.size() < kept_examples) tally.examples.push_back(example);
}

void add_tallies(Tallies& tallies, const json& more) {
  for (const auto& [reason, entry] : more.items()) {
    auto& tally = tallies[reason];
    tally.count += entry.at("count").get<std::int64_t>();
    for (const auto& example : entry.at("examples"))
      if (tally.examples.size() < kept_examples) tally.examples.push_back(example);
  }
}

std::string excerpt(const Record& record) {
  std::string text;
  for (const auto& [name, value] : record.fields)
    text += (text.empty() ? "" : "\n") + name + ": " + value;
  for (const auto& [name, list] : record.lists)
    text += (text.empty() ? "" : "\n") + name + ": " + joined(list);
  const auto add = [&](const std::string& name, const Message& message) {
    text += (text.empty() ? "" : "\n") + name + ": " + message.content +
            (message.extra.empty() ? "" : " " + message.extra);
  };
  for (const auto& message : record.messages) add(message.role, message);
  for (const auto& [name, messages] : record.answers)
    for (const auto& message : messages) add(name + ", " + message.role, message);
  return text.substr(0, listed_bytes);
}

}  // namespace

std::string place_of(const Record& record) {
  return fmt::format("{}, row {}", record.source, record.row);
}

void Ledger::drop(const std::string& reason, const Record& record) {
  count(dropped_, reason, place_of(record), 1);
  if (listing_) list(reason, record.source, record.row, excerpt(record));
}

void Ledger::drop(const std::string& reason, const std::string& source, std::int64_t row,
                  const std::string& text) {
  count(dropped_, reason, text, 1);
  if (listing_) list(reason, source, row, text);
}

bool Ledger::tells(const std::string& reason) const {
  const auto found = dropped_.find(reason);
  return listing_ || found == dropped_.end() || found->second.examples.size() < kept_examples;
}

std::int64_t Ledger::dropped_count() const {
  return std::accumulate(dropped_.begin(), dropped_.end(), std::int64_t{0},
                         [](auto sum, const auto& entry) { return sum + entry.second.count; });
}

void Ledger::list(const std::string& reason, const std::string& source, std::int64_t row,
                  const std::string& text) {
  list_ += dumped({{"reason", reason}, {"source", source}, {"row", row}, {"text", text}}) + "\n";
}

void Ledger::change(const std::string& what, const std::string& place, std::int64_t by) {
  count(changed_, what, place, by);
}

json Ledger::to_json() const {
  return {{"dropped", attune::to_json(dropped_)}, {"changed", attune::to_json(changed_)}};
}

void Ledger::add(const json& later) {
  add_tallies(dropped_, later.at("dropped"));
  add_tallies(changed_, later.at("changed"));
}

json to_json(const Tallies& tallies) {
  json result = json::object();
  for (const auto& [reason, tally] : tallies)
    result[reason] = {{"count", tally.count}, {"examples", tally.examples}};
  return result;
}

std::string dumped(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace attune
