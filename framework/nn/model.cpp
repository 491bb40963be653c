#include <attune/device.hpp>
#include <attune/error.hpp>
#include <attune/model.hpp>
#include <attune/nn.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <functional>

namespace attune {
namespace {

void check_length(const ForwardContext& pass, std::int64_t context) {
  const auto& batch = pass.batch();
  std::int64_t longest = 0;
  for (std::int64_t sample = 0; sample < batch.samples(); ++sample) {
    const auto seen = pass.cache ? pass.cache->length(sample) : 0;
    longest = std::max(longest, seen + batch.starts[static_cast<std::size_t>(sample) + 1] -
                                    batch.starts[static_cast<std::size_t>(sample)]);
  }
  if (longest > context) {
    fail(
        "a sample of {} tokens is longer than the model's context of {}: set max_length to at most "
        "{} when preparing the data",
        longest, context, context);
  }
}

/// A decoder's batch with `added` virtual tokens before every sample.
struct Widened {
  Batch batch;
  // int64 [T + B added]: which row of (virtual tokens, samples end to end) each row is
  at::Tensor source;
  at::Tensor own_rows;  // int64 [T]: where the samples' own rows are

  Widened(const Batch& narrow, std::int64_t added) : batch(narrow) {
    std::vector<std::int64_t> rows;
    std::vector<std::int64_t> own;
    std::vector<std::int64_t> positions;
    std::vector<std::int64_t> starts{0};
    for (std::int64_t sample = 0; sample < narrow.samples(); ++sample) {
      const auto first = narrow.starts[sample];
      const auto end = narrow.starts[sample + 1];
      for (std::int64_t i = 0; i < added; ++i) rows.push_back(i);
      for (auto row = first; row < end; ++row) {
        own.push_back(static_cast<std::int64_t>(rows.size()));
        rows.push_back(added + row);
      }
      for (std::int64_t i = 0; i < added + end - first; ++i) positions.push_back(i);
      starts.push_back(static_cast<std::int64_t>(rows.size()));
    }
    const auto put = [&](const std::vector<std::int64_t>& values) {
      return on_device(torch::tensor(values, at::kLong), narrow.positions.device());
    };
    source = put(rows);
    own_rows = put(own);
    batch.positions = put(positions);
    batch.starts = std::move(starts);
    batch.tokens = at::cat({at::zeros({added}, narrow.tokens.options()), narrow.tokens})
                       .index_select(0, source);
  }
};

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Forward = std::function<at::Tensor(const at::Tensor&)>;

/// Keeps x alone and computes forward(x) again in the backward pass, with the same random numbers.
struct RecomputeFunction : torch::autograd::Function<RecomputeFunction> {
  struct Held : torch::CustomClassHolder {
    Held(Forward forward, at::Tensor random)
        : forward(std::move(forward)), random(std::move(random)) {}
    Forward forward;
    at::Tensor random;
  };

  /// `anchor` requires a gradient, so that there is a backward pass also where x needs none.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const at::Tensor& /*anchor*/, const Forward& forward) {
    context->save_for_backward({x});
    context->saved_data["held"] =
        at::IValue::make_capsule(c10::make_intrusive<Held>(forward, generator(x).get_state()));
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
  /// A planned pass draws nothing: any generator does.
  static at::Generator generator(const at::Tensor& x) {
    return at::globalContext().defaultGenerator(x.is_meta() ? at::Device(at::kCPU) : x.device());
  }
};

at::Tensor recomputed(const Forward& forward, const at::Tensor& x) {
  const at::Tensor anchor = at::empty({0}, x.options()).requires_grad_(true);
  return RecomputeFunction::apply(x, anchor, forward);
}

}  // namespace

KeyValueCache::KeyValueCache(std::int64_t blocks, std::int64_t samples)
    : entries_(static_cast<std::size_t>(samples)) {
  for (auto& sample : entries_) sample.resize(static_cast<std::size_t>(blocks));
}

namespace {

/// The rows so far and `more` after them; seen may be undefined. They are the first rows of a
/// storage that has room for others.
at::Tensor extended(const at::Tensor& seen, const at::Tensor& more) {
  const auto before = seen.defined() ? seen.size(0) : 0;
  const auto rows = before + more.size(0);
  auto sizes = more.sizes().vec();
  at::Tensor room = seen;
  if (!seen.defined() ||
      seen.storage().nbytes() < static_cast<std::size_t>(rows) * more[0].nbytes()) {
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

std::pair<at::Tensor, at::Tensor> KeyValueCache::append(std::int64_t block, std::int64_t sample,
                                                        const at::Tensor& keys,
                                                        const at::Tensor& values) {
  auto& [all_keys, all_values] =
      entries_.at(static_cast<std::size_t>(sample)).at(static_cast<std::size_t>(block));
  all_keys = extended(all_keys, keys);
  all_values = extended(all_values, values);
  return {all_keys, all_values};
}

std::int64_t KeyValueCache::length(std::int64_t sample, std::int64_t block) const {
  const auto& keys =
      entries_.at(static_cast<std::size_t>(sample)).at(static_cast<std::size_t>(block)).first;
  return keys.defined() ? keys.size(0) : 0;
}

void KeyValueCache::keep(const std::vector<std::int64_t>& samples) {
  decltype(entries_) kept;
  for (const auto sample : samples)
    kept.push_back(std::move(entries_.at(static_cast<std::size_t>(sample))));
  entries_ = std::move(kept);
}

at::Tensor VirtualTokens::embeddings() { return {}; }

std::pair<at::Tensor, at::Tensor> VirtualTokens::keys_values(std::int64_t) { return {}; }

void Model::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  if (virtual_tokens_)
    fail("two strategies prepend virtual tokens to every sample: keep one of them");
  virtual_tokens_ = std::move(tokens);
}

at::Tensor Model::features(ForwardContext context) {
  if (virtual_tokens_ && context.changes_act()) return features_after_tokens(std::move(context));
  const auto& batch = context.batch();
  const auto done = batch.hidden.defined() && batch.hidden_of == this ? batch.hidden_parts : 0;
  check_length(context, spec().context);
  const at::Tensor start =
      done > 0 ? batch.hidden.to(projection().options().dtype()) : embedded(context);
  const at::Tensor h = blocks(start, done, spec().depth, context);
  return done > spec().depth ? h : finished(h, context);
}

at::Tensor Model::features_after_tokens(ForwardContext context) {
  const auto added = virtual_tokens_->length();
  const at::Tensor embeddings = virtual_tokens_->embeddings();
  const bool begins = !context.cache || context.cache->length() == 0;
  const auto& batch = context.batch();
  // A cache counts virtual tokens among those it has seen.
  if (!embeddings.defined() || !begins) {
    auto moved = batch;
    if (begins) moved.positions = batch.positions + added;
    auto after = context.with_batch(std::move(moved));
    after.virtual_tokens = virtual_tokens_.get();
    check_length(after, spec().context - (begins ? added : 0));
    return finished(blocks(embedded(after), 0, spec().depth, after), after);
  }
  const Widened wider(batch, added);
  const auto whole = context.with_batch(wider.batch);
  check_length(whole, spec().context);
  const at::Tensor own = embedded(context);
  const at::Tensor h =
      at::cat({nn::rounded(embeddings, own.scalar_type()), own}).index_select(0, wider.source);
  return finished(blocks(h, 0, spec().depth, whole), whole).index_select(0, wider.own_rows);
}

at::Tensor Model::hidden_after(std::int64_t parts, ForwardContext context) {
  check_length(context, spec().context);
  const at::Tensor h = blocks(embedded(context), 0, std::min(parts, spec().depth), context);
  return parts > spec().depth ? finished(h, context) : h;
}

std::int64_t Model::frozen_parts(ForwardContext context) {
  if (virtual_tokens_) return 0;  // every block attends to them
  // what is computed again requires a gradient, whatever it is made of
  context.recompute = false;
  check_length(context, spec().context);
  at::Tensor h = embedded(context);
  if (h.requires_grad()) return 0;
  for (std::int64_t index = 0; index < spec().depth; ++index) {
    h = blocks(h, index, index + 1, context);
    if (h.requires_grad()) return index;
  }
  return finished(h, context).requires_grad() ? spec().depth : spec().depth + 1;
}

at::Tensor Model::embedded(const ForwardContext& context) {
  auto before = context.in_block(-1);
  at::Tensor h = embed(before);
  if (!before.changes_act() || !before.is_training()) return h;
  for (const auto& change : embedding_changes_) h = change(h, before);
  return h;
}

at::Tensor Model::blocks(at::Tensor h, std::int64_t from, std::int64_t to,
                         const ForwardContext& context) {
  const bool recompute = context.recompute && at::GradMode::is_enabled();
  for (auto index = from; index < to; ++index) {
    const auto forward = [this, index, own = context.in_block(index)](const at::Tensor& x) {
      auto again = own;  // a second time it draws the same random numbers
      return block(index, x, again);
    };
    h = recompute ? recomputed(forward, h) : forward(h);
  }
  return h;
}

at::Tensor Model::finished(const at::Tensor& h, const ForwardContext& context) {
  auto after = context.in_block(spec().depth);
  return finish(h, after);
}

at::Tensor Model::logits(ForwardContext context) {
  const at::Tensor h = features(context);
  auto head = context.in_projection();
  return projection().forward(h, head);
}

}  // namespace attune
