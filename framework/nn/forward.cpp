#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/forward.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <limits>
#include <map>

#include "core/split_mix.hpp"
#include "kernels/rows.hpp"

namespace attune {

/// The stream of every row of a tensor, and the row's number in it.
struct Streams {
  std::vector<std::uint64_t> keys;
  std::vector<std::uint32_t> rows;
};

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Work of so many numbers is shared out to the threads.
constexpr std::int64_t numbers_per_thread = 16384;

template <class Work>
void for_each_row(const at::Tensor& x, Work&& work) {
  const auto rows = x.size(0);
  const auto width = rows == 0 ? 0 : x.numel() / rows;
  at::parallel_for(
      0, rows, std::max<std::int64_t>(1, numbers_per_thread / std::max<std::int64_t>(1, width)),
      [&](std::int64_t first, std::int64_t end) {
        for (auto row = first; row < end; ++row)
          work(static_cast<std::size_t>(row), row * width, static_cast<std::size_t>(width));
      });
}

/// float32 on the host, [rows, ...] like x.
at::Tensor numbers_like(const at::Tensor& x, const Streams& streams) {
  const at::Tensor numbers = at::empty(x.sizes(), at::kFloat);
  auto* out = numbers.data_ptr<float>();
  for_each_row(x, [&](std::size_t row, std::int64_t first, std::size_t width) {
    kernels::uniform(streams.keys[row], streams.rows[row], out + first, width);
  });
  return numbers;
}

at::Tensor dropped(const at::Tensor& given, const Streams& streams, double p) {
  if (given.is_meta()) return at::empty_like(given);
  const at::Tensor x = given.contiguous();
  const auto scale = static_cast<float>(1 / (1 - p));
  if (!x.is_cpu() || x.scalar_type() != at::kFloat) {
    const at::Tensor is_kept =
        on_device(numbers_like(x, streams).ge(static_cast<float>(p)), x.device());
    return at::where(is_kept, x * scale, at::zeros({}, x.options()));
  }
  const at::Tensor y = at::empty_like(x);
  const auto* in = x.const_data_ptr<float>();
  auto* out = y.data_ptr<float>();
  for_each_row(x, [&](std::size_t row, std::int64_t first, std::size_t width) {
    kernels::dropout(streams.keys[row], streams.rows[row], in + first, static_cast<float>(p), scale,
                     out + first, width);
  });
  return y;
}

/// Srivastava et al. 2014 (jmlr.org/papers/v15/srivastava14a.html). Its numbers are drawn again for
/// the backward pass.
struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  struct Held : torch::CustomClassHolder {
    explicit Held(Streams streams) : streams(std::move(streams)) {}
    Streams streams;
  };

  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Streams& streams,
                            double p) {
    context->saved_data["streams"] = at::IValue::make_capsule(c10::make_intrusive<Held>(streams));
    context->saved_data["p"] = p;
    return dropped(x, streams, p);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto& held = static_cast<Held&>(*context->saved_data["streams"].toCapsule());
    return {dropped(gradients[0], held.streams, context->saved_data["p"].toDouble()), {}, {}};
  }
};

}  // namespace

struct ForwardContext::Tables {
  std::map<const nn::RotaryEmbedding*, nn::Rotation> rotations;
};

ForwardContext::ForwardContext() : ForwardContext(Batch{}) {}

ForwardContext::ForwardContext(Batch batch, Phase phase, RandomKey key)
    : batch_(std::make_shared<const Batch>(std::move(batch))),
      phase_(phase),
      key_(key),
      tables_(std::make_shared<Tables>()) {}

ForwardContext ForwardContext::base_alone() const {
  auto other = *this;
  other.changes_act_ = false;
  other.virtual_tokens = nullptr;
  return other;
}

ForwardContext ForwardContext::shared_by(std::vector<OwnedSamples> owners) const {
  std::int64_t seen = 0;
  for (const auto& owned : owners) {
    ATTUNE_ASSERT(owned.first >= seen && owned.count >= 0, "owner {} has {} samples from {}",
                  owned.owner, owned.count, owned.first);
    seen = owned.first + owned.count;
  }
  ATTUNE_ASSERT(seen <= batch_->samples(), "owners have {} samples of {}", seen, batch_->samples());
  auto other = *this;
  other.owners_ = std::move(owners);
  return other;
}

ForwardContext ForwardContext::with_batch(Batch batch) const {
  auto other = *this;
  other.batch_ = std::make_shared<const Batch>(std::move(batch));
  other.tables_ = std::make_shared<Tables>();
  return other;
}

ForwardContext ForwardContext::in_block(std::int64_t block) const {
  auto other = *this;
  other.block_ = block;
  other.draws_ = 0;
  return other;
}

ForwardContext ForwardContext::in_projection() const {
  return in_block(std::numeric_limits<std::int64_t>::max());
}

ForwardContext ForwardContext::of_rows(at::Tensor rows, std::int64_t all) const {
  auto other = *this;
  other.rows_ = std::move(rows);
  other.all_rows_ = all;
  return other;
}

const nn::Rotation& ForwardContext::rotation(nn::RotaryEmbedding& rotary) {
  const auto found = tables_->rotations.find(&rotary);
  if (found != tables_->rotations.end()) return found->second;
  return tables_->rotations.emplace(&rotary, rotary.at(batch_->positions)).first->second;
}

std::vector<ForwardContext::Place> ForwardContext::places(std::int64_t rows) const {
  if (rows_.defined()) {
    ATTUNE_ASSERT(rows_.size(0) == rows, "{} rows where the context is of {}", rows, rows_.size(0));
    auto whole = *this;
    whole.rows_ = at::Tensor();
    const auto all = whole.places(all_rows_);
    const at::Tensor chosen = rows_.cpu().contiguous();
    std::vector<Place> places;
    for (std::int64_t i = 0; i < rows; ++i)
      places.push_back(all[static_cast<std::size_t>(chosen.const_data_ptr<std::int64_t>()[i])]);
    return places;
  }
  const auto samples = batch_->samples();
  std::vector<Place> places;
  if (samples > 0 && rows == batch_->length()) {
    for (std::int64_t sample = 0; sample < samples; ++sample) {
      const auto first = batch_->starts[static_cast<std::size_t>(sample)];
      const auto end = batch_->starts[static_cast<std::size_t>(sample) + 1];
      for (auto row = first; row < end; ++row) places.push_back({sample, row - first});
    }
    return places;
  }
  const auto each = samples > 0 && rows % samples == 0 ? rows / samples : rows;
  for (std::int64_t row = 0; row < rows; ++row) places.push_back({row / each, row % each});
  return places;
}

std::vector<ForwardContext::Part> ForwardContext::parts(std::int64_t rows) const {
  const auto owner_of = [&](std::int64_t sample) -> std::optional<std::int64_t> {
    for (const auto& owned : owners_)
      if (sample >= owned.first && sample < owned.first + owned.count) return owned.owner;
    return std::nullopt;
  };
  std::vector<Part> parts;
  const auto where = places(rows);
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto owner = owner_of(where[static_cast<std::size_t>(row)].sample);
    if (parts.empty() || parts.back().owner != owner) parts.push_back({owner, row, 0});
    ++parts.back().count;
  }
  return parts;
}

ForwardContext ForwardContext::of_part(const Part& part, std::int64_t rows) const {
  auto context = rows_.defined()
                     ? of_rows(rows_.narrow(0, part.first, part.count), all_rows_)
                     : of_rows(at::arange(part.first, part.first + part.count, at::kLong), rows);
  context.owners_.clear();
  context.owner_ = part.owner;
  context.changes_act_ = changes_act_ && part.owner.has_value();
  return context;
}

at::Tensor ForwardContext::by_owner(const at::Tensor& x, const Forward& forward) {
  if (owners_.empty() || x.size(0) == 0) return forward(x, *this);
  std::vector<at::Tensor> outputs;
  auto draws = draws_;
  for (const auto& part : parts(x.size(0))) {
    auto context = of_part(part, x.size(0));
    outputs.push_back(forward(x.narrow(0, part.first, part.count), context));
    draws = std::max(draws, context.draws_);
  }
  draws_ = draws;
  return at::cat(outputs);
}

/// By sample. A row of the data may give several, as a pair of answers does.
std::vector<std::uint64_t> ForwardContext::keys(std::int64_t samples) const {
  const auto& ids = batch_->ids;
  const auto known = !ids.empty() && batch_->samples() % std::ssize(ids) == 0;
  const auto each = known ? batch_->samples() / std::ssize(ids) : 1;
  std::vector<std::uint64_t> keys;
  for (std::int64_t sample = 0; sample < samples; ++sample) {
    const auto row = known ? ids[static_cast<std::size_t>(sample / each)] : sample;
    keys.push_back(mixed({key_.seed, key_.step, static_cast<std::uint64_t>(row),
                          static_cast<std::uint64_t>(sample % each),
                          static_cast<std::uint64_t>(block_), static_cast<std::uint64_t>(draws_)}));
  }
  return keys;
}

struct ForwardContext::Drawn : Streams {};

ForwardContext::Drawn ForwardContext::draw(std::int64_t rows) {
  const auto where = places(rows);
  const auto of_sample =
      keys(where.empty() ? 0 : 1 + std::ranges::max(where, {}, &Place::sample).sample);
  Drawn drawn;
  for (const auto& place : where) {
    drawn.keys.push_back(of_sample[static_cast<std::size_t>(place.sample)]);
    drawn.rows.push_back(static_cast<std::uint32_t>(place.position));
  }
  ++draws_;
  return drawn;
}

at::Tensor ForwardContext::random(const at::Tensor& x) {
  const auto drawn = draw(x.size(0));
  return x.is_meta() ? at::empty(x.sizes(), x.options().dtype(at::kFloat).requires_grad(false))
                     : on_device(numbers_like(x, drawn), x.device());
}

at::Tensor ForwardContext::dropout(const at::Tensor& x, double p) {
  if (!is_training() || p == 0) return x;
  return DropoutFunction::apply(x, static_cast<Streams>(draw(x.size(0))), p);
}

}  // namespace attune
