#include "parallel/c10d_forms.hpp"

#include <attune/error.hpp>
#include <fmt/format.h>
#include <torch/torch.h>

#include <torch/csrc/distributed/c10d/Utils.hpp>

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

namespace attune::parallel {
namespace {

template <class... Args>
void require(bool is_so, fmt::format_string<Args...> text, Args&&... args) {
  if (!is_so) throw Fault(fmt::format(text, std::forward<Args>(args)...));
}

void require_contiguous(const at::Tensor& output, const at::Tensor& input, const char* call) {
  require(output.is_contiguous() && input.is_contiguous(), "{}: tensors must be contiguous", call);
}

void require_one_type(const std::vector<at::Tensor>& tensors, at::ScalarType type,
                      const char* call) {
  for (const auto& tensor : tensors)
    require(tensor.scalar_type() == type, "{}: tensors of type {} and {} together", call,
            c10::toString(tensor.scalar_type()), c10::toString(type));
}

void require_count(std::size_t count, int ranks, const char* call) {
  require(std::cmp_equal(count, ranks), "{}: {} tensors for {} ranks", call, count, ranks);
}

std::vector<std::int64_t> numels(const std::vector<at::Tensor>& tensors) {
  std::vector<std::int64_t> all;
  for (const auto& tensor : tensors) all.push_back(tensor.numel());
  return all;
}

/// A view of all of them, if they lie one behind another in memory.
std::optional<at::Tensor> as_one(const std::vector<at::Tensor>& tensors) {
  const auto& first = tensors.front();
  auto end = first.storage_offset();
  for (const auto& tensor : tensors) {
    const bool follows = tensor.is_contiguous() && tensor.is_alias_of(first) &&
                         (tensor.numel() == 0 || tensor.storage_offset() == end);
    if (!follows) return std::nullopt;
    end += tensor.numel();
  }
  return first.as_strided({end - first.storage_offset()}, {1}, first.storage_offset());
}

/// Memory of the output's own where it can be written to in place, otherwise other memory; `give`
/// brings the result home.
class Receiver {
 public:
  Receiver(const at::Tensor& output, at::ScalarType type, bool is_shared) : output_(output) {
    const bool in_place = output.is_contiguous() && output.scalar_type() == type && !is_shared;
    buffer_ = in_place ? output
                       : at::empty(output.sizes(), output.options().dtype(type).memory_format(
                                                       at::MemoryFormat::Contiguous));
  }
  const at::Tensor& buffer() const { return buffer_; }
  void give() {
    if (!buffer_.is_same(output_)) output_.copy_(buffer_);
  }

 private:
  at::Tensor output_;
  at::Tensor buffer_;
};

/// input: the blocks of all ranks one behind another.
void reduce_scatter(const Collectives& collectives, const at::Tensor& output,
                    const at::Tensor& input, const std::vector<std::int64_t>& sizes, Reduction op) {
  require_one_type({input}, output.scalar_type(), "reduce_scatter");
  const auto mine = sizes[static_cast<std::size_t>(collectives.comm().rank())];
  require(mine == output.numel(), "reduce_scatter: an output of {} elements for blocks of {}",
          output.numel(), mine);
  Receiver receiver(output, reduced_as(output.scalar_type()), output.is_alias_of(input));
  collectives.reduce_scatter(receiver.buffer(), input.to(receiver.buffer().scalar_type()), sizes,
                             op);
  receiver.give();
}

/// Along the first dimension; evenly where there are no sizes.
std::vector<at::Tensor> split_for_ranks(const at::Tensor& tensor, std::vector<std::int64_t> sizes,
                                        int ranks) {
  require(tensor.dim() > 0, "all_to_all: a tensor without a dimension cannot be split");
  c10d::checkSplitSizes(sizes, tensor, ranks);
  if (sizes.empty()) sizes.assign(static_cast<std::size_t>(ranks), tensor.size(0) / ranks);
  return tensor.split_with_sizes(sizes);
}

}  // namespace

at::Tensor in_one_row(const std::vector<at::Tensor>& tensors) {
  if (const auto one = as_one(tensors)) return *one;
  std::vector<at::Tensor> all;
  for (const auto& tensor : tensors) all.push_back(tensor.flatten());
  return at::cat(all);
}

void all_reduce(const Collectives& collectives, const at::Tensor& tensor, Reduction op) {
  const auto buffer = tensor.to(reduced_as(tensor.scalar_type())).contiguous();
  collectives.all_reduce(buffer, op);
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

void broadcast(const Collectives& collectives, const at::Tensor& tensor, int from) {
  const auto buffer = tensor.contiguous();
  collectives.broadcast(buffer, from);
  if (!buffer.is_same(tensor)) tensor.copy_(buffer);
}

void reduce_scatter_list(const Collectives& collectives, const at::Tensor& output,
                         const std::vector<at::Tensor>& inputs, Reduction op) {
  require_count(inputs.size(), collectives.comm().size(), "reduce_scatter");
  require_one_type(inputs, output.scalar_type(), "reduce_scatter");
  reduce_scatter(collectives, output, in_one_row(inputs), numels(inputs), op);
}

void reduce_scatter_tensor(const Collectives& collectives, const at::Tensor& output,
                           const at::Tensor& input, Reduction op) {
  require_contiguous(output, input, "reduce_scatter");
  const auto ranks = collectives.comm().size();
  require(input.numel() == output.numel() * ranks,
          "reduce_scatter: an input of {} elements for {} ranks with outputs of {}", input.numel(),
          ranks, output.numel());
  reduce_scatter(collectives, output, input,
                 std::vector<std::int64_t>(static_cast<std::size_t>(ranks), output.numel()), op);
}

void all_gather_list(const Collectives& collectives, const std::vector<at::Tensor>& outputs,
                     const at::Tensor& input) {
  require_count(outputs.size(), collectives.comm().size(), "all_gather");
  require_one_type(outputs, input.scalar_type(), "all_gather");
  const auto sizes = numels(outputs);
  const auto mine = sizes[static_cast<std::size_t>(collectives.comm().rank())];
  require(mine == input.numel(), "all_gather: an input of {} elements for outputs of {}",
          input.numel(), mine);
  const auto in_place = as_one(outputs);
  const auto all = in_place
                       ? *in_place
                       : at::empty({std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0})},
                                   input.options());
  const auto own = input.is_alias_of(all) ? input.clone() : input;
  collectives.all_gather(all, own.contiguous(), sizes);
  if (in_place) return;
  std::int64_t begin = 0;
  for (const auto& output : outputs) {
    output.copy_(all.narrow(0, begin, output.numel()).view(output.sizes()));
    begin += output.numel();
  }
}

void all_gather_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input) {
  require_contiguous(output, input, "all_gather");
  require_one_type({input}, output.scalar_type(), "all_gather");
  const auto ranks = collectives.comm().size();
  require(output.numel() == input.numel() * ranks,
          "all_gather: an output of {} elements for {} ranks with inputs of {}", output.numel(),
          ranks, input.numel());
  const auto mine = input.is_alias_of(output)
                        ? input.clone()
                        : input;  // a rank's part may be its place in the whole
  collectives.all_gather(output, mine,
                         std::vector<std::int64_t>(static_cast<std::size_t>(ranks), input.numel()));
}

void all_to_all_tensor(const Collectives& collectives, const at::Tensor& output,
                       const at::Tensor& input, const std::vector<std::int64_t>& output_sizes,
                       const std::vector<std::int64_t>& input_sizes) {
  require_contiguous(output, input, "all_to_all");
  require_one_type({input}, output.scalar_type(), "all_to_all");
  const auto ranks = collectives.comm().size();
  const auto sent = input.is_alias_of(output) ? input.clone() : input;
  collectives.all_to_all(split_for_ranks(output, output_sizes, ranks),
                         split_for_ranks(sent, input_sizes, ranks));
}

void all_to_all_list(const Collectives& collectives, const std::vector<at::Tensor>& outputs,
                     const std::vector<at::Tensor>& inputs) {
  require_count(outputs.size(), collectives.comm().size(), "all_to_all");
  require_count(inputs.size(), collectives.comm().size(), "all_to_all");
  require_one_type(outputs, inputs.front().scalar_type(), "all_to_all");
  require_one_type(inputs, inputs.front().scalar_type(), "all_to_all");
  std::vector<at::Tensor> sent;
  std::vector<at::Tensor> buffers;
  std::vector<Receiver> receivers;
  for (const auto& input : inputs) sent.push_back(input.contiguous());
  for (const auto& output : outputs) {
    const bool is_shared =
        std::ranges::any_of(sent, [&](const auto& input) { return input.is_alias_of(output); });
    buffers.push_back(receivers.emplace_back(output, output.scalar_type(), is_shared).buffer());
  }
  collectives.all_to_all(buffers, sent);
  for (auto& receiver : receivers) receiver.give();
}

}  // namespace attune::parallel
