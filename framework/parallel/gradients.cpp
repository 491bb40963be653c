#include "parallel/gradients.hpp"

#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/reducer.hpp>

#include <algorithm>
#include <utility>

#include "core/hash.hpp"
#include "parallel/backend.hpp"
#include "parallel/mpi.hpp"
#include "parallel/wide_gradients.hpp"

namespace attune::parallel {
namespace {

/// The reducer's own hook averages; losses here are sums.
class SumHook final : public c10d::CppCommHookInterface<ProcessGroup> {
 public:
  using CppCommHookInterface::CppCommHookInterface;
  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    std::vector<at::Tensor> gradients{bucket.getBufferRef()};
    return state_->allreduce(gradients)->getFuture();
  }
};

/// In the order their gradients become ready, about last to first. The first bucket is small, so
/// that reduction starts early.
std::vector<std::vector<std::size_t>> buckets(const std::vector<at::Tensor>& parameters) {
  auto indices = std::get<0>(c10d::compute_bucket_assignment_by_size(
      parameters, {c10d::kDefaultFirstBucketBytes, c10d::kDefaultBucketBytesCap}));
  std::reverse(indices.begin(), indices.end());
  return indices;
}

void pass_of_zeros(c10d::Reducer& reducer, const std::vector<at::Tensor>& parameters) {
  reducer.prepare_for_backward({});
  for (auto i = parameters.size(); i-- > 0;)
    torch::autograd::backward({parameters[i]}, {zero_gradient(parameters[i])});
}

/// LibTorch's reducer notes in which order gradients become ready in its first pass, and makes its
/// buckets anew by it. A parameter's place decides in which order ranks are added, and a resumed
/// run must add as one that was not interrupted. So the first pass is one of zeros, before the
/// first step, last parameter first. Making buckets without it would not do: the reducer would go
/// on noting.
void settle_buckets(c10d::Reducer& reducer, const std::vector<at::Tensor>& parameters) {
  pass_of_zeros(reducer, parameters);
  // views of the old buckets: they would be held beside the new ones
  for (const auto& parameter : parameters) parameter.mutable_grad() = at::Tensor();
  reducer.rebuild_buckets();
}

/// Each parameter's place in the buckets.
std::vector<at::Tensor> views_of_buckets(c10d::Reducer& reducer,
                                         const std::vector<at::Tensor>& parameters) {
  pass_of_zeros(reducer, parameters);
  std::vector<at::Tensor> views;
  for (const auto& parameter : parameters)
    views.push_back(std::exchange(parameter.mutable_grad(), at::Tensor()));
  return views;
}

std::unique_ptr<c10d::Reducer> make_reducer(const NamedTensors& named,
                                            const std::vector<at::Tensor>& parameters,
                                            ProcessGroup group) {
  std::unordered_map<std::size_t, std::string> names;
  for (std::size_t i = 0; i < named.size(); ++i) names[i] = named[i].first;
  ATTUNE_ASSERT(std::ranges::none_of(parameters, has_wide_gradient),
                "c10d::Reducer has no buckets for gradients of another dtype");
  // Unused parameters are ours to find, in finish(): the reducer's own search sees only the graph
  // before the pass, and misses what recomputed activations reach.
  auto reducer = std::make_unique<c10d::Reducer>(
      parameters, buckets(parameters), group, std::vector<bool>(parameters.size(), false),
      c10d::kDefaultBucketBytesCap, /*find_unused_parameters=*/false,
      /*gradient_as_bucket_view=*/true, names, c10d::kDefaultFirstBucketBytes,
      /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false,
      std::vector<std::int64_t>{});
  reducer->register_comm_hook(std::make_unique<SumHook>(group));
  settle_buckets(*reducer, parameters);
  return reducer;
}

/// Of gradients that are all there.
void sum_in_buckets(const std::vector<at::Tensor>& parameters, c10d::ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  for (const auto& bucket : buckets(parameters)) {
    std::vector<at::Tensor> flat;
    for (const auto i : bucket) flat.push_back(parameters[i].grad().flatten());
    std::vector<at::Tensor> sum{at::cat(flat)};
    group.allreduce(sum)->wait();
    std::int64_t from = 0;
    for (const auto i : bucket) {
      const auto& gradient = parameters[i].grad();
      gradient.copy_(sum[0].narrow(0, from, gradient.numel()).view(gradient.sizes()));
      from += gradient.numel();
    }
  }
}

}  // namespace

void check_same_everywhere(const NamedTensors& tensors, const Comm& comm) {
  Sha256 sum;
  for (const auto& [name, tensor] : tensors)
    sum.add(fmt::format("{} {} {}\n", name, c10::str(tensor.sizes()),
                        c10::toString(tensor.scalar_type())));
  const auto mine = sum.hex();
  const auto roots = comm.broadcast(mine);
  comm.agree([&] {
    ATTUNE_ASSERT(mine == roots, "{} tensors here; names, shapes or dtypes are not those of rank 0",
                  tensors.size());
  });
}

struct GradientReducer::Parts {
  ProcessGroup group;  // null unless sums are made in finish()
  std::vector<at::Tensor> parameters;
  // in the last backward pass, by parameter; not vector<bool>: threads may set neighbours
  std::vector<char> reached;
  std::vector<unsigned> hooks;
  std::unique_ptr<c10d::Reducer> reducer;  // null on one rank
  std::vector<at::Tensor> views;           // of its buckets, by parameter

  ~Parts() {
    for (std::size_t i = 0; i < hooks.size(); ++i) parameters[i].remove_hook(hooks[i]);
  }

  void watch() {
    reached.resize(parameters.size());
    for (std::size_t i = 0; i < parameters.size(); ++i)
      hooks.push_back(
          parameters[i].register_hook([this, i](const at::Tensor&) { reached[i] = 1; }));
  }

  /// Gives every parameter that the pass did not reach a gradient of zero, and the reducer what it
  /// still waits for.
  void complete() {
    // frozen for a while by a strategy
    std::vector<at::Tensor> unreached;
    std::vector<at::Tensor> zeros;
    std::vector<at::Tensor> frozen;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (reached[i]) continue;
      unreached.push_back(parameters[i]);
      zeros.push_back(zero_gradient(parameters[i]));
      if (!parameters[i].requires_grad()) frozen.push_back(parameters[i]);
    }
    for (const auto& parameter : frozen) parameter.set_requires_grad(true);
    if (!unreached.empty()) torch::autograd::backward(unreached, zeros);
    for (const auto& parameter : frozen) parameter.set_requires_grad(false);
  }
};

GradientReducer::GradientReducer(NamedTensors named, const Comm& data, ProcessGroup group,
                                 bool in_one_piece)
    : parts_(std::make_unique<Parts>()) {
  ATTUNE_ASSERT(!named.empty(), "there is no parameter to reduce");
  check_same_everywhere(named, data);
  for (const auto& [name, tensor] : named) parts_->parameters.push_back(tensor);
  parts_->watch();
  if (data.size() == 1) return;
  if (!in_one_piece) {
    parts_->group = std::move(group);
    return;
  }
  parts_->reducer = make_reducer(named, parts_->parameters, std::move(group));
  parts_->views = views_of_buckets(*parts_->reducer, parts_->parameters);
}

GradientReducer::~GradientReducer() = default;
GradientReducer::GradientReducer(GradientReducer&&) noexcept = default;

void GradientReducer::begin(std::int64_t passes) {
  if (passes < 2 || !parts_->reducer) return;
  for (std::size_t i = 0; i < parts_->parameters.size(); ++i)
    parts_->parameters[i].mutable_grad() = parts_->views[i].zero_();
}

void GradientReducer::begin_last_backward() {
  std::fill(parts_->reached.begin(), parts_->reached.end(), 0);
  if (!parts_->reducer) return;
  parts_->reducer->prepare_for_backward({});
}

void GradientReducer::finish() {
  parts_->complete();
  if (parts_->group) sum_in_buckets(parts_->parameters, *parts_->group);
}

void broadcast_parameters(const NamedTensors& tensors, const Comm& data) {
  check_same_everywhere(tensors, data);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : tensors) {
    const auto buffer = tensor.detach().cpu().contiguous();
    data.broadcast(buffer.data_ptr(), buffer.nbytes());
    if (buffer.data_ptr() != tensor.data_ptr()) tensor.copy_(buffer);
  }
}

}  // namespace attune::parallel
