#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <functional>

namespace attune {
namespace {

void check_length(const Batch& batch, std::int64_t context) {
  std::int64_t longest = 0;
  for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
    const auto seen = batch.cache ? batch.cache->length(sample) : 0;
    longest = std::max(longest, seen + batch.starts[static_cast<std::size_t>(sample) + 1] - batch.starts[static_cast<std::size_t>(sample)]);
  }
  if (longest > context) {
    fail("a sample of {} tokens is longer than the model's context of {}: set max_length to at most {} when preparing the data", longest, context, context);
  }
}

/// A decoder's batch with `added` virtual tokens before every sample.
struct Widened {
  Batch batch;
  at::Tensor source;    // int64 [T + B added]: which row of (virtual tokens, samples end to end) each row is
  at::Tensor own_rows;  // int64 [T]: where the samples' own rows are

  Widened(const Batch& narrow, std::int64_t added) : batch(narrow) {
    std::vector<std::int64_t> rows, own, positions, starts{0};
    for (std::int64_t sample = 0; sample < narrow.samples(); ++sample) {
      const auto first = narrow.starts[sample], end = narrow.starts[sample + 1];
      for (std::int64_t i = 0; i < added; ++i) rows.push_back(i);
      for (auto row = first; row < end; ++row) own.push_back(static_cast<std::int64_t>(rows.size())), rows.push_back(added + row);
      for (std::int64_t i = 0; i < added + end - first; ++i) positions.push_back(i);
      starts.push_back(static_cast<std::int64_t>(rows.size()));
    }
    const auto on_device = [&](const std::vector<std::int64_t>& values) { return torch::tensor(values, at::kLong).to(narrow.positions.device()); };
    source = on_device(rows);
    own_rows = on_device(own);
    batch.positions = on_device(positions);
    batch.starts = std::move(starts);
    batch.tokens = at::cat({at::zeros({added}, narrow.tokens.options()), narrow.tokens}).index_select(0, source);
  }
};

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Forward = std::function<at::Tensor(const at::Tensor&)>;

/// Keeps x alone and computes forward(x) again in the backward pass, with the same random numbers.
struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  struct Held : torch::CustomClassHolder {
    Held(Forward forward, at::Tensor random) : forward(std::move(forward)), random(std::move(random)) {}
    Forward forward;
    at::Tensor random;
  };

  /// `anchor` requires a gradient, so that there is a backward pass also where x needs none.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& /*anchor*/, const Forward& forward) {
    context->save_for_backward({x});
    context->saved_data["held"] = at::IValue::make_capsule(c10::make_intrusive<Held>(forward, generator(x).get_state()));
    const torch::NoGradGuard no_grad;
    return forward(x);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto& held = static_cast<Held&>(*context->saved_data["held"].toCapsule());
    const at::Tensor saved = context->get_saved_variables()[0];
    at::Generator random = generator(saved);
    const at::Tensor before = random.get_state();
    random.set_state(held.random);
    const at::AutoGradMode with_gradients(true);
    const at::Tensor x = saved.detach().requires_grad_(context->needs_input_grad(0));
    const at::Tensor y = held.forward(x);
    random.set_state(before);
    if (y.requires_grad()) y.backward(gradients[0]);
    return {x.grad(), {}, {}};
  }

 private:
  static at::Generator generator(const at::Tensor& x) { return at::globalContext().defaultGenerator(x.device()); }
};

at::Tensor recomputed(const Forward& forward, const at::Tensor& x) {
  const at::Tensor anchor = at::empty({0}, x.options()).requires_grad_(true);
  return RecomputeFunction::apply(x, anchor, forward);
}

}  // namespace

KeyValueCache::KeyValueCache(std::int64_t blocks, std::int64_t samples) : entries_(static_cast<std::size_t>(samples)) {
  for (auto& sample : entries_) sample.resize(static_cast<std::size_t>(blocks));
}

namespace {

/// The rows so far and `more` after them; seen may be undefined. They are the first rows of a storage that has room for others.
at::Tensor extended(const at::Tensor& seen, const at::Tensor& more) {
  const auto before = seen.defined() ? seen.size(0) : 0, rows = before + more.size(0);
  auto sizes = more.sizes().vec();
  at::Tensor room = seen;
  if (!seen.defined() || seen.storage().nbytes() < static_cast<std::size_t>(rows) * more[0].nbytes()) {
    sizes[0] = std::max<std::int64_t>(64, 2 * rows);
    room = at::empty(sizes, more.options());
    if (seen.defined()) room.narrow(0, 0, before).copy_(seen);
  }
  sizes[0] = rows;
  const at::Tensor all = room.as_strided(sizes, room.strides(), 0);
  all.narrow(0, before, more.size(0)).copy_(more);
  return all;
}

}  // namespace

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(std::int64_t block, std::int64_t sample, const at::Tensor& keys, const at::Tensor& values) {
  auto& [all_keys, all_values] = entries_.at(static_cast<std::size_t>(sample)).at(static_cast<std::size_t>(block));
  all_keys = extended(all_keys, keys);
  all_values = extended(all_values, values);
  return {all_keys, all_values};
}

std::int64_t KeyValueCache::length(std::int64_t sample, std::int64_t block) const {
  const auto& keys = entries_.at(static_cast<std::size_t>(sample)).at(static_cast<std::size_t>(block)).first;
  return keys.defined() ? keys.size(0) : 0;
}

void KeyValueCache::keep(const std::vector<std::int64_t>& samples) {
  decltype(entries_) kept;
  for (const auto sample : samples) kept.push_back(std::move(entries_.at(static_cast<std::size_t>(sample))));
  entries_ = std::move(kept);
}

at::Tensor VirtualTokens::embeddings() { return {}; }

std::pair<at::Tensor, at::Tensor> VirtualTokens::keys_values(std::int64_t) { return {}; }

void Model::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  if (virtual_tokens_) fail("two strategies put virtual tokens before every sample: keep one of them");
  virtual_tokens_ = std::move(tokens);
}

void Model::enable_adapters(bool enabled) {
  adapters_enabled_ = enabled;
  for (auto& [name, linear] : nn::linears(module())) linear->enable_deltas(enabled);
  for (auto& [name, convolution] : nn::layers_of<nn::Conv2d>(module())) convolution->enable_deltas(enabled);
  for (auto& [name, embedding] : nn::layers_of<nn::Embedding>(module())) embedding->enable_deltas(enabled);
}

at::Tensor Model::features(const Batch& batch) {
  if (!virtual_tokens_ || !adapters_enabled_) {
    const auto done = batch.hidden.defined() ? prefix_ : 0;
    check_length(batch, spec().context);
    const at::Tensor start = done > 0 ? batch.hidden.to(projection().options().dtype()) : embedded(batch);
    const at::Tensor h = blocks(start, done, spec().depth, batch);
    return done > spec().depth ? h : finish(h, batch);
  }
  const auto added = virtual_tokens_->length();
  const at::Tensor embeddings = virtual_tokens_->embeddings();
  const bool begins = !batch.cache || batch.cache->length() == 0;
  Batch moved = batch;
  moved.prefix = virtual_tokens_.get();
  // A cache counts virtual tokens among those it has seen.
  if (begins) moved.positions = batch.positions + added;
  if (!embeddings.defined() || !begins) {
    check_length(moved, spec().context - (begins ? added : 0));
    return finish(blocks(embedded(moved), 0, spec().depth, moved), moved);
  }
  const Widened wider(batch, added);
  check_length(wider.batch, spec().context);
  const at::Tensor own = embedded(batch), h = at::cat({embeddings.to(own.scalar_type()), own}).index_select(0, wider.source);
  return finish(blocks(h, 0, spec().depth, wider.batch), wider.batch).index_select(0, wider.own_rows);
}

at::Tensor Model::prefix(const Batch& batch, std::int64_t parts) {
  check_length(batch, spec().context);
  const at::Tensor h = blocks(embedded(batch), 0, std::min(parts, spec().depth), batch);
  return parts > spec().depth ? finish(h, batch) : h;
}

std::int64_t Model::frozen_parts(const Batch& batch) {
  if (virtual_tokens_) return 0;  // every block attends to them
  check_length(batch, spec().context);
  at::Tensor h = embedded(batch);
  if (h.requires_grad()) return 0;
  for (std::int64_t index = 0; index < spec().depth; ++index) {
    h = block(index, h, batch);
    if (h.requires_grad()) return index;
  }
  return finish(h, batch).requires_grad() ? spec().depth : spec().depth + 1;
}

at::Tensor Model::embedded(const Batch& batch) {
  at::Tensor h = embed(batch);
  if (!adapters_enabled_ || !module().is_training()) return h;
  for (const auto& change : embedding_changes_) h = change(h, batch);
  return h;
}

at::Tensor Model::blocks(at::Tensor h, std::int64_t from, std::int64_t to, const Batch& batch) {
  const bool recompute = recompute_ && at::GradMode::is_enabled();
  for (auto index = from; index < to; ++index) {
    const auto forward = [this, index, batch](const at::Tensor& x) { return block(index, x, batch); };
    h = recompute ? recomputed(forward, h) : forward(h);
  }
  return h;
}

at::Tensor Model::logits(const Batch& batch) { return projection().forward(features(batch)); }

}  // namespace attune
