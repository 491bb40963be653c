#include "parallel/sharing.hpp"

#include <attune/error.hpp>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

namespace attune::parallel {

// Here, because only here c10d::ProcessGroup is complete: its header takes seconds to compile.
RankGroup::RankGroup() = default;
RankGroup::RankGroup(Comm ranks, ProcessGroup among_them)
    : comm(std::move(ranks)), collectives(std::move(among_them)) {}
RankGroup::~RankGroup() = default;
RankGroup::RankGroup(const RankGroup&) = default;
RankGroup::RankGroup(RankGroup&&) noexcept = default;
RankGroup& RankGroup::operator=(const RankGroup&) = default;
RankGroup& RankGroup::operator=(RankGroup&&) noexcept = default;

Sharing Sharing::nothing(const RankGroup& data) {
  return {Sharded::nothing, data, RankGroup{}, data};
}

Sharing Sharing::make(const Comm& data, Sharded what, int number_of_copies, bool reproducible,
                      c10::Device device, Transport transport) {
  ATTUNE_ASSERT(data.size() % number_of_copies == 0, "{} ranks in {} copies", data.size(),
                number_of_copies);
  const int shards = what == Sharded::nothing ? 1 : data.size() / number_of_copies;
  const bool is_table = shards > 1 && number_of_copies > 1;
  const auto group = [&](const Comm& comm) {
    return RankGroup{comm, make_process_group(comm, device, transport)};
  };
  const auto all = is_table && !reproducible ? RankGroup{data, nullptr} : group(data);
  if (shards == 1) return nothing(all);
  if (!is_table) return {what, all, all, RankGroup{}};
  auto of_shards = group(data.split(data.rank() / shards));
  auto of_copies = group(data.split(data.rank() % shards));
  return {what, all, std::move(of_shards), std::move(of_copies)};
}

}  // namespace attune::parallel
