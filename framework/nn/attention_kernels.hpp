// The kernels of attention, by device, dtype and shape. docs/gpu.md lists them.
#pragma once
#include <ATen/core/Tensor.h>
#include <attune/nn.hpp>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "nn/planned.hpp"

namespace attune::nn {

/// The most rows of a sample.
inline std::int64_t longest_of(const std::vector<std::int64_t>& starts) {
  std::int64_t most = 0;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i)
    most = std::max(most, starts[i + 1] - starts[i]);
  return most;
}

/// Attention of all samples of a batch, each within itself, none of them empty. Shapes as in
/// attention(). A sample's last key is that of its last query; it may have earlier ones that are no
/// query's.
struct PackedAttention {
  const at::Tensor& q;
  const at::Tensor& k;
  const at::Tensor& v;
  const std::vector<std::int64_t>& starts;      // of queries
  const std::vector<std::int64_t>& key_starts;  // of keys and values
  const AttentionOptions& options;

  std::int64_t samples() const { return std::ssize(starts) - 1; }
  std::int64_t longest() const { return longest_of(starts); }
  bool has_more_keys() const { return starts != key_starts; }
  /// Whether the window hides something.
  bool is_windowed() const {
    return options.causal && options.window > 0 && options.window < longest_of(key_starts);
  }
};

struct AttentionKernel {
  const char* name;
  bool (*serves)(const PackedAttention&);
  at::Tensor (*attend)(const PackedAttention&);
};

/// The first that serves is used; null if there is none. In order: "rows", Attune's own in float32
/// on the CPU; "flash" and "efficient", LibTorch's for packed samples on a device; "padded", for
/// what these do not know on a device.
const AttentionKernel* attention_kernel(const PackedAttention& call);

bool rows_serve(const PackedAttention& call);
at::Tensor attend_by_rows(const PackedAttention& call);
bool flash_serves(const PackedAttention& call);
at::Tensor attend_by_flash(const PackedAttention& call);
bool efficient_serves(const PackedAttention& call);
at::Tensor attend_efficiently(const PackedAttention& call);
bool padding_serves(const PackedAttention& call);
at::Tensor attend_padded(const PackedAttention& call);

/// What a kernel derives of the batch that this thread saw last: once for all layers of its pass.
template <class Kept>
Kept& kept_for(const PackedAttention& call) {
  struct Last {
    std::vector<std::int64_t> starts;
    std::vector<std::int64_t> key_starts;
    c10::Device device = c10::kCPU;
    Kept kept;
  };
  static thread_local auto& last = *new Last;  // outlives the device's library
  if (last.starts != call.starts || last.key_starts != call.key_starts ||
      last.device != call.q.device())
    last = {call.starts, call.key_starts, call.q.device(), {}};
  return last.kept;
}

/// Float32 in the memory of the host, or planned to be there.
bool is_float_on_cpu(const at::Tensor& x);

using KeysValues = std::pair<at::Tensor, at::Tensor>;

/// Queries of samples end to end, each against its own keys and values, of which the last are the
/// queries'. Float32 on the CPU, without gradients.
at::Tensor attend_to_seen(const at::Tensor& q, const std::vector<KeysValues>& seen,
                          const std::vector<std::int64_t>& starts, const AttentionOptions& options);

/// Which keys a query sees: bool [rows, keys]; the last query is the last key. Absent: all of them.
std::optional<at::Tensor> visible(std::int64_t rows, std::int64_t keys,
                                  const AttentionOptions& options, at::Device device);

/// By the kernel that LibTorch chooses; on the meta device, what it would keep. q, k, v: [batch,
/// heads, rows, width]; k and v may have fewer heads.
at::Tensor attend_at_once(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          const std::optional<at::Tensor>& mask, bool causal,
                          const AttentionOptions& options);

/// On the meta device, whose own choice would keep all scores. Shapes as for attend_at_once().
at::Tensor planned_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                             const std::optional<at::Tensor>& mask, bool causal,
                             const AttentionOptions& options);

/// Attention with a softcap, whose scores exist in full. q, k, v: [..., heads, rows, width], as
/// many heads of each. mask: bool, as visible().
at::Tensor attend_softly(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const std::optional<at::Tensor>& mask, const AttentionOptions& options);

}  // namespace attune::nn
