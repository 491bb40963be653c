#include "weights/shared_weights.hpp"

#include <nlohmann/json.hpp>

#include "parallel/mpi.hpp"
#include "parallel/tensors.hpp"

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

SharedWeights::SharedWeights(std::unique_ptr<WeightSource> source, Comm comm)
    : source_(std::move(source)), comm_(std::move(comm)) {
  std::string list;
  on_root(comm_, [&] { list = to_text(source_->tensors()); });
  tensors_ = from_text(comm_.broadcast(list));
}

at::Tensor SharedWeights::read(const std::string& name) {
  at::Tensor tensor;
  on_root(comm_, [&] { tensor = source_->read(name); });
  return parallel::broadcast_tensor(tensor, comm_);
}

}  // namespace attune
