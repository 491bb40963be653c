#include "weights/shared_weights.hpp"

#include <nlohmann/json.hpp>

#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"
#include "weights/weight_source.hpp"

namespace attune {
namespace {

std::string to_text(const std::vector<TensorInfo>& tensors) {
  auto list = nlohmann::json::array();
  for (const auto& tensor : tensors)
    list.push_back({tensor.name, tensor.shape, tensor.stored, tensor.bytes});
  return list.dump();
}

std::vector<TensorInfo> from_text(const std::string& text) {
  std::vector<TensorInfo> tensors;
  for (const auto& item : nlohmann::json::parse(text))
    tensors.push_back({item[0], item[1], item[2], item[3]});
  return tensors;
}

}  // namespace

SharedWeights::SharedWeights(std::unique_ptr<WeightSource> source, Comm comm,
                             std::shared_ptr<parallel::NodeMemory> memory)
    : source_(std::move(source)),
      comm_(std::move(comm)),
      memory_(std::move(memory)),
      firsts_(memory_ ? comm_.split(memory_->node().root() ? 0 : 1) : comm_) {
  std::string list;
  on_root(comm_, [&] { list = to_text(source_->tensors()); });
  tensors_ = from_text(comm_.broadcast(list));
}

at::Tensor SharedWeights::read(const std::string& name) {
  at::Tensor tensor;
  on_root(comm_, [&] { tensor = source_->read(name); });
  return parallel::broadcast_tensor(tensor, comm_);
}

at::Tensor SharedWeights::read_as(const std::string& name, at::ScalarType dtype,
                                  bool is_transposed) {
  if (!memory_) return WeightSource::read_as(name, dtype, is_transposed);
  at::Tensor values;
  on_root(comm_, [&] { values = values_for(*source_, name, dtype); });
  if (memory_->node().root()) values = parallel::broadcast_tensor(values, firsts_);
  return memory_->place(is_transposed && values.defined() ? values.t() : values, dtype);
}

}  // namespace attune
