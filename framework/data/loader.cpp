#include "data/loader.hpp"

#include <attune/error.hpp>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/plugin_call.hpp"
#include "core/stopwatch.hpp"

namespace attune {
namespace {

/// The part of each of these sizes, so that the parts' sums are about the same: the largest first,
/// each to the part that has least (Graham 1969, "Bounds on multiprocessing timing anomalies",
/// LPT). No part stays empty where there are enough.
std::vector<std::size_t> even_parts(const std::vector<std::int64_t>& sizes, std::size_t parts) {
  std::vector<std::size_t> order(sizes.size());
  std::vector<std::size_t> part(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return sizes[a] > sizes[b]; });
  std::vector<std::pair<std::int64_t, std::int64_t>> loads(parts);  // sum and count
  for (const auto i : order) {
    const auto least = std::min_element(loads.begin(), loads.end());
    part[i] = static_cast<std::size_t>(least - loads.begin());
    least->first += sizes[i];
    ++least->second;
  }
  return part;
}

/// About half the tokens of a micro-batch stay, the rest is returned. Both keep their order.
MicroBatch cut_in_two(MicroBatch& micro) {
  const auto part = even_parts(micro.lengths, 2);
  MicroBatch halves[2];
  for (std::size_t i = 0; i < part.size(); ++i) {
    halves[part[i]].rows.push_back(micro.rows[i]);
    halves[part[i]].lengths.push_back(micro.lengths[i]);
  }
  micro = std::move(halves[0]);
  return std::move(halves[1]);
}

void cut_until(std::vector<MicroBatch>& micro_batches, std::size_t wanted) {
  const auto size = [](const MicroBatch& micro) {
    return micro.rows.size() > 1 ? micro.tokens() : -1;
  };
  while (micro_batches.size() < wanted) {
    const auto largest =
        std::max_element(micro_batches.begin(), micro_batches.end(),
                         [&](const auto& a, const auto& b) { return size(a) < size(b); });
    ATTUNE_ASSERT(largest != micro_batches.end() && largest->rows.size() > 1,
                  "{} micro-batches of single samples for {} ranks", micro_batches.size(), wanted);
    auto rest = cut_in_two(*largest);
    micro_batches.insert(largest + 1, std::move(rest));
  }
}

/// In the order of the list: each bound the nearest to an even share that leaves a micro-batch to
/// every rank.
std::vector<std::int64_t> share_in_order(const std::vector<MicroBatch>& micro_batches, int ranks) {
  std::vector<std::int64_t> before{0};  // tokens before each micro-batch
  for (const auto& micro : micro_batches) before.push_back(before.back() + micro.tokens());
  const auto count = std::ssize(micro_batches);
  const auto total = before.back();
  std::vector<std::int64_t> bounds{0};
  for (std::int64_t rank = 1; rank < ranks; ++rank) {
    const auto off = [&](std::int64_t bound) {
      return std::abs(before[static_cast<std::size_t>(bound)] * ranks - total * rank);
    };
    auto bound = bounds.back() + 1;
    while (bound < count - (ranks - rank) && off(bound + 1) <= off(bound)) ++bound;
    bounds.push_back(bound);
  }
  bounds.push_back(count);
  return bounds;
}

/// The list is brought into an order in which the ranks' pieces are as even as its micro-batches
/// allow.
std::vector<std::int64_t> share_evenly(std::vector<MicroBatch>& micro_batches, int ranks) {
  std::vector<std::int64_t> tokens;
  for (const auto& micro : micro_batches) tokens.push_back(micro.tokens());
  const auto part = even_parts(tokens, static_cast<std::size_t>(ranks));
  std::vector<MicroBatch> ordered;
  std::vector<std::int64_t> bounds{0};
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank) {
    for (std::size_t i = 0; i < part.size(); ++i)
      if (part[i] == rank) ordered.push_back(std::move(micro_batches[i]));
    bounds.push_back(std::ssize(ordered));
  }
  micro_batches = std::move(ordered);
  return bounds;
}

}  // namespace

std::int64_t MicroBatch::tokens() const {
  return std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
}

std::vector<MicroBatch> plan_step(std::span<const std::int64_t> rows,
                                  std::span<const std::int64_t> lengths,
                                  const PlanOptions& options) {
  ATTUNE_ASSERT(rows.size() == lengths.size() && options.micro_batch > 0,
                "{} rows, {} lengths, micro_batch {}", rows.size(), lengths.size(),
                options.micro_batch);
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  if (options.group_lengths)
    std::stable_sort(order.begin(), order.end(),
                     [&](auto a, auto b) { return lengths[a] < lengths[b]; });

  std::vector<MicroBatch> plan;
  const auto has_room = [&](std::int64_t length) {
    const auto& last = plan.back();
    return options.micro_tokens > 0 ? last.tokens() + length <= options.micro_tokens
                                    : std::ssize(last.rows) < options.micro_batch;
  };
  for (const auto i : order) {
    if (plan.empty() || !has_room(lengths[i])) plan.emplace_back();
    plan.back().rows.push_back(rows[i]);
    plan.back().lengths.push_back(lengths[i]);
  }
  return plan;
}

std::vector<std::int64_t> share_out(std::vector<MicroBatch>& micro_batches, int ranks,
                                    bool keep_order) {
  if (keep_order && std::ssize(micro_batches) < ranks)
    fail(
        "a step has {} micro-batches for {} ranks, but parallel.reproducible = true cannot split "
        "them: lower train.micro_batch or train.micro_tokens, or run on at most {} ranks",
        micro_batches.size(), ranks, micro_batches.size());
  if (keep_order) return share_in_order(micro_batches, ranks);
  cut_until(micro_batches, static_cast<std::size_t>(ranks));
  return share_evenly(micro_batches, ranks);
}

std::vector<std::int64_t> sample_lengths(const Split& split) {
  std::vector<std::int64_t> total(static_cast<std::size_t>(split.size()), 0);
  bool any = false;
  for (const auto& column : split.columns()) {
    if (!split.holds_tokens(column)) continue;
    any = true;
    const auto lengths = split.lengths(column);
    std::transform(total.begin(), total.end(), lengths.begin(), total.begin(), std::plus());
  }
  if (!any) std::fill(total.begin(), total.end(), 1);
  return total;
}

/// The series of one rank's batches from a step on.
class Loader::Reader {
 public:
  Reader(const Loader& loader, std::int64_t step)
      : split_(loader.split_),
        dataset_(loader.dataset_),
        options_(loader.options_),
        rank_(loader.rank_),
        ranks_(loader.ranks_),
        lengths_(loader.lengths_),
        sampler_(split_.size(), options_.global_batch, options_.seed, ranks_,
                 options_.shuffle_block),
        step_(step) {}

  Item next() {
    if (!plan_ || at_ == plan_->end) begin_step();
    const auto& rows = plan_->micro_batches[static_cast<std::size_t>(at_++)].rows;
    const auto count = static_cast<std::ptrdiff_t>(rows.size());
    std::vector<Sample> samples(std::make_move_iterator(samples_.begin()),
                                std::make_move_iterator(samples_.begin() + count));
    samples_.erase(samples_.begin(), samples_.begin() + count);
    call_plugin({"the dataset plugin", "augment", plan_->step}, [&] {
      for (std::size_t i = 0; i < rows.size(); ++i)
        samples[i] = dataset_.augment(std::move(samples[i]),
                                      mixed({options_.seed, static_cast<std::uint64_t>(plan_->step),
                                             static_cast<std::uint64_t>(rows[i])}));
    });
    auto batch = collate(dataset_, samples, rows);
    if (options_.hidden) {
      batch.hidden = options_.hidden->read(rows);
      batch.hidden_parts = options_.hidden->made_by().parts;
      batch.hidden_of = options_.hidden->made_by().model;
    }
    return {plan_, std::move(batch)};
  }

 private:
  /// All rows of this rank at once: neighbours in the file are read together.
  void begin_step() {
    auto plan = std::make_shared<StepPlan>();
    plan->step = step_++;
    plan->rows = sampler_.step_rows(plan->step);
    std::vector<std::int64_t> lengths;
    for (const auto row : plan->rows) lengths.push_back((*lengths_)[static_cast<std::size_t>(row)]);
    plan->micro_batches = plan_step(plan->rows, lengths, options_.plan);
    const auto bounds = share_out(plan->micro_batches, ranks_, options_.reproducible);
    plan->first = bounds[static_cast<std::size_t>(rank_)];
    plan->end = bounds[static_cast<std::size_t>(rank_) + 1];
    std::vector<std::int64_t> rows;
    for (auto i = plan->first; i < plan->end; ++i) {
      const auto& micro = plan->micro_batches[static_cast<std::size_t>(i)].rows;
      rows.insert(rows.end(), micro.begin(), micro.end());
    }
    samples_ = split_.read(rows);
    at_ = plan->first;
    plan_ = std::move(plan);
  }

  const Split& split_;
  const Dataset& dataset_;
  const LoaderOptions options_;
  const int rank_;
  const int ranks_;
  const std::shared_ptr<const std::vector<std::int64_t>> lengths_;
  Sampler sampler_;
  std::int64_t step_;  // the next to plan
  std::shared_ptr<const StepPlan> plan_;
  std::vector<Sample> samples_;  // of the step, those not yet handed over
  std::int64_t at_ = 0;          // the next micro-batch of the plan
};

Loader::Loader(const Split& split, const Dataset& dataset, const LoaderOptions& options, int rank,
               int ranks)
    : split_(split),
      dataset_(dataset),
      options_(options),
      rank_(rank),
      ranks_(ranks),
      lengths_(std::make_shared<const std::vector<std::int64_t>>(sample_lengths(split))) {
  // refuses what does not fit, before any step
  Sampler(split.size(), options.global_batch, options.seed, ranks, options.shuffle_block);
}

Loader::~Loader() = default;

const StepPlan& Loader::begin_step(std::int64_t step) {
  const bool goes_on = items_ && head_.plan && head_.plan->step + 1 == step &&
                       taken_ == head_.plan->end - head_.plan->first;
  if (!goes_on) {
    items_.reset();
    items_ = std::make_unique<Prefetch<Item>>(
        [reader = std::make_shared<Reader>(*this, step)] { return reader->next(); },
        options_.ahead);
  }
  head_ = take();
  taken_ = 0;
  return *head_.plan;
}

Batch Loader::next() {
  ATTUNE_ASSERT(head_.plan && taken_ < head_.plan->end - head_.plan->first,
                "step {} has no more batches", head_.plan ? head_.plan->step : -1);
  if (taken_++ == 0) return std::move(head_.batch);
  return take().batch;
}

Loader::Item Loader::take() {
  const Stopwatch watch;
  auto item = items_->next();
  waited_seconds_ += watch.seconds();
  return item;
}

}  // namespace attune
