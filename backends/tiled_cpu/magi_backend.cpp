#include "tiled_cpu/magi_backend.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "attnmux/error.h"
#include "common/gates.h"
#include "common/prepared_as.h"
#include "tiled_cpu/cpu_isa.h"
#include "tiled_cpu/magi_prepared.h"

namespace attnmux {
namespace {

using tiled_cpu::BackwardProblem;
using tiled_cpu::Dims;
using tiled_cpu::ForwardProblem;
using tiled_cpu::Kernels;
using tiled_cpu::KernelTable;
using tiled_cpu::kQTile;
using tiled_cpu::MagiPrepared;
using tiled_cpu::MutableView;
using tiled_cpu::View;

constexpr std::string_view kId = "magi";
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxTokens = (int64_t{1} << 31) - kQTile;

std::optional<Reason> head_dims_within_limit(const AttentionRequest& request) {
  const std::string want = "at most " + std::to_string(kMaxHeadDim);
  if (request.head_dim > kMaxHeadDim)
    return Reason{ReasonCode::kHeadDim, std::to_string(request.head_dim), want, "choose another backend"};
  if (value_head_dim(request) > kMaxHeadDim)
    return Reason{ReasonCode::kHeadDimV, std::to_string(request.head_dim_v), want, "choose another backend"};
  return std::nullopt;
}

std::optional<Reason> tokens_within_limit(const AttentionRequest& request) {
  if (request.max_tokens <= kMaxTokens) return std::nullopt;
  return Reason{ReasonCode::kLength, std::to_string(request.max_tokens) + " tokens",
                "at most " + std::to_string(kMaxTokens) + " tokens", "shorten the packed sequence"};
}

constexpr Gate kGates[] = {
    dtype_among<DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64>,
    valid_heads,
    valid_head_dims,
    head_dims_within_limit,
    tokens_within_limit,
    on_device<DeviceKind::kCpu>,
    no_softcap,
    no_attention_sink,
    no_dropout,
};

const Kernels& kernels_of(const KernelTable& table, at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat: return table.float32;
    case at::kBFloat16: return table.bfloat16;
    case at::kHalf: return table.float16;
    case at::kDouble: return table.float64;
    default:
      throw Error(ErrorCode::kContractBroken, std::string("magi: dtype ") + at::toString(dtype) +
                                                  " was not planned; fp32, bf16, fp16 and fp64 are taken");
  }
}

at::ScalarType compute_dtype(const at::Tensor& q) { return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

View view_of(const at::Tensor& t) {
  return {.data = t.const_data_ptr(), .token = t.stride(0), .head = t.stride(1), .dim = t.stride(2)};
}

MutableView mutable_view_of(const at::Tensor& t) {
  return {.data = t.mutable_data_ptr(), .token = t.stride(0), .head = t.stride(1), .dim = t.stride(2)};
}

Dims dims_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return {.total_q = q.size(0),
          .total_k = k.size(0),
          .heads_q = q.size(1),
          .heads_kv = k.size(1),
          .head_dim = q.size(2),
          .head_dim_v = v.size(2)};
}

// at::empty, in huge pages where Linux grants them. malloc gives large buffers back to the system and takes them anew,
// call after call; a page fault every 4 KiB of them costs a window of 512 keys a tenth of its time.
at::Tensor empty_in_huge_pages(at::IntArrayRef sizes, const at::TensorOptions& options) {
  constexpr uintptr_t kHugePage = 2 * 1024 * 1024;
  const at::Tensor tensor = at::empty(sizes, options);
#if defined(MADV_HUGEPAGE)
  const uintptr_t at = reinterpret_cast<uintptr_t>(tensor.mutable_data_ptr());
  const uintptr_t begin = (at + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (at + tensor.nbytes()) / kHugePage * kHugePage;
  // A hint: where it is refused, pages are small and nothing else changes.
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  return tensor;
}

// Heads of k and v that forward keeps packed at a time, at least one. As few as give each thread this many q tiles, for
// what was packed a short while ago is still in a cache, and one more, for a thread that is done with a head to go on
// with; and at most so many bytes, for memory that is new to the process costs a page fault every 4 KiB, and a buffer
// of this size is handed out again by malloc, call after call.
constexpr int64_t kItemsPerThread = 16;
constexpr int64_t kPackedBytes = 16 * 1024 * 1024;

int64_t packed_heads(int64_t items_per_head, int64_t bytes_per_head, int64_t heads_kv) {
  const int64_t per_head = std::max<int64_t>(items_per_head, 1);
  const int64_t wanted = (kItemsPerThread * at::get_num_threads() + per_head - 1) / per_head + 1;
  const int64_t fitting = kPackedBytes / std::max<int64_t>(bytes_per_head, 1);
  return std::clamp<int64_t>(std::min(wanted, fitting), 1, heads_kv);
}

// Work below this many multiplications is not worth waking another thread for.
constexpr int64_t kSmallWork = int64_t{1} << 21;

// Runs work(item, scratch) for items [0, count), which threads take one by one in ascending order. cost:
// multiplications.
template <class Work>
void run_in_order(int64_t count, int64_t cost, size_t scratch_bytes, const Work& work) {
  if (count == 0) return;
  constexpr size_t kAlignment = 64;
  const int64_t workers = cost < kSmallWork ? 1 : std::min<int64_t>(count, at::get_num_threads());
  const int64_t stride = static_cast<int64_t>((scratch_bytes + kAlignment - 1) / kAlignment * kAlignment);
  const at::Tensor scratch = at::empty({workers * stride}, at::kByte);  // ATen aligns to 64 bytes
  std::byte* const base = static_cast<std::byte*>(scratch.mutable_data_ptr());
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, workers, 1, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker) {
      for (int64_t item = next++; item < count; item = next++) work(item, base + worker * stride);
    }
  });
}

class MagiBackend final : public AttentionBackend {
 public:
  explicit MagiBackend(const KernelTable& table) : table_(table) {}

  BackendInfo info() const override {
    return {.id = std::string(kId),
            .version = ATTNMUX_VERSION,
            .description = "tiled attention for every mask: time grows with the attended area, memory with the length"};
  }

  Support query(const AttentionRequest& request) const noexcept override { return run_gates(kGates, request); }

  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    return std::make_shared<MagiPrepared>(mask, shape);
  }

  ForwardResult forward(const Prepared& prepared, const ForwardArgs& args) const override {
    const auto& own = prepared_as<MagiPrepared>(prepared, kId);
    const auto options = args.q.options();
    const at::Tensor out = empty_in_huge_pages({args.q.size(0), args.q.size(1), args.v.size(2)}, options);
    const at::Tensor lse = at::empty({args.q.size(0), args.q.size(1)}, options.dtype(compute_dtype(args.q)));
    const Kernels& kernels = kernels_of(table_, args.q.scalar_type());
    const Dims dims = dims_of(args.q, args.k, args.v);
    const int64_t num_k_tiles = own.plan.num_k_tiles;
    const int64_t tile_bytes = static_cast<int64_t>(kernels.packed_tile_bytes(dims));
    const int64_t group = dims.heads_q / dims.heads_kv, items = own.plan.num_q_tiles * group;  // of one kv head
    const int64_t slots = packed_heads(items, num_k_tiles * tile_bytes, dims.heads_kv);
    const at::Tensor packed = empty_in_huge_pages({slots * num_k_tiles * tile_bytes}, at::kByte);
    const at::Tensor packed_states = at::zeros({slots, num_k_tiles}, at::kInt);
    const ForwardProblem problem = {.dims = dims,
                                    .plan = own.view(),
                                    .q = view_of(args.q),
                                    .k = view_of(args.k),
                                    .v = view_of(args.v),
                                    .out = mutable_view_of(out),
                                    .lse = lse.mutable_data_ptr(),
                                    .softmax_scale = args.softmax_scale,
                                    .packed = {.tiles = static_cast<char*>(packed.mutable_data_ptr()),
                                               .states = static_cast<int32_t*>(packed_states.mutable_data_ptr()),
                                               .slots = slots,
                                               .num_tiles = num_k_tiles,
                                               .tile_bytes = static_cast<size_t>(tile_bytes)}};
    const int64_t cost = own.plan.area * dims.heads_q * (dims.head_dim + dims.head_dim_v);
    std::vector<std::atomic<int64_t>> ended(dims.heads_kv);  // items of each kv head
    // The heads that share keys side by side, then the q tiles that are likely to: what they share stays in L2.
    const auto item_at = [&](int64_t item) {
      return tiled_cpu::ForwardItem{.q_tile = own.q_order[item % items / group],
                                    .head = item / items * group + item % group};
    };
    // While items take equally long, a thread's next one is as many further as there are threads.
    const int64_t threads = at::get_num_threads(), last = items * dims.heads_kv - 1;
    run_in_order(items * dims.heads_kv, cost, kernels.forward_scratch(problem), [&](int64_t item, void* scratch) {
      const int64_t kv_head = item / items;
      // Items are taken in order: those waited for have been, and wait for none after them.
      while (kv_head >= slots && ended[kv_head - slots].load(std::memory_order_acquire) < items)
        std::this_thread::yield();
      kernels.forward(problem, item_at(item), item_at(std::min(item + threads, last)), scratch);
      ended[kv_head].fetch_add(1, std::memory_order_release);
    });
    return {.out = out, .lse = lse};
  }

  BackwardResult backward(const Prepared& prepared, const BackwardArgs& args) const override {
    const auto& own = prepared_as<MagiPrepared>(prepared, kId);
    const auto compute = args.q.options().dtype(compute_dtype(args.q));
    const at::Tensor dq = empty_in_huge_pages(args.q.sizes(), compute);
    const at::Tensor dk = empty_in_huge_pages(args.k.sizes(), args.k.options());
    const at::Tensor dv = empty_in_huge_pages(args.v.sizes(), args.v.options());
    const at::Tensor lse = args.lse.to(compute.dtype()).contiguous();
    const at::Tensor delta = at::empty({args.q.size(1), args.q.size(0)}, compute);
    const at::Tensor dq_turn = at::zeros({own.plan.num_q_tiles, args.q.size(1)}, at::kInt);
    const BackwardProblem problem = {.dims = dims_of(args.q, args.k, args.v),
                                     .plan = own.view(),
                                     .q = view_of(args.q),
                                     .k = view_of(args.k),
                                     .v = view_of(args.v),
                                     .out = view_of(args.out),
                                     .dout = view_of(args.dout),
                                     .lse = lse.const_data_ptr(),
                                     .delta = delta.mutable_data_ptr(),
                                     .dq = dq.mutable_data_ptr(),
                                     .dk = mutable_view_of(dk),
                                     .dv = mutable_view_of(dv),
                                     .softmax_scale = args.softmax_scale,
                                     .tiles_per_segment = own.tiles_per_segment,
                                     .num_k_tiles = own.plan.num_k_tiles,
                                     .segment_q_tiles = own.segment_q_tiles.data(),
                                     .dq_turn = static_cast<int32_t*>(dq_turn.mutable_data_ptr())};
    const Kernels& kernels = kernels_of(table_, args.q.scalar_type());
    const int64_t heads_q = problem.dims.heads_q, heads_kv = problem.dims.heads_kv;
    const size_t scratch_bytes = kernels.backward_scratch(problem);
    const int64_t cost = own.plan.area * heads_q * (3 * problem.dims.head_dim + 2 * problem.dims.head_dim_v);
    run_in_order(own.plan.num_q_tiles, args.dout.numel(), scratch_bytes,
                 [&](int64_t q_tile, void* scratch) { kernels.delta(problem, static_cast<int32_t>(q_tile), scratch); });
    // Segment by segment, for the kernel waits for earlier segments of the same head.
    run_in_order(own.num_segments * heads_kv, cost, scratch_bytes, [&](int64_t item, void* scratch) {
      kernels.backward(problem, static_cast<int32_t>(item / heads_kv), item % heads_kv, scratch);
    });
    return {.dq = dq.to(args.q.scalar_type()), .dk = dk, .dv = dv};
  }

 private:
  KernelTable table_;
};

}  // namespace

std::shared_ptr<const AttentionBackend> make_magi_backend(CpuIsa isa) {
  if (isa > best_cpu_isa()) {
    throw Error(ErrorCode::kInvalidArgument,
                "magi: this processor lacks the instruction set asked for; leave it out to take the best one at hand");
  }
  return std::make_shared<MagiBackend>(tiled_cpu::kernel_table(isa));
}

}  // namespace attnmux
