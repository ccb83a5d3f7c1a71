#include "ffa_sm90/prepared.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "ffa_sm90/backward_plan.h"
#include "ffa_sm90/cuda_check.h"
#include "ffa_sm90/forward_plan.h"

namespace attnmux::ffa_sm90 {
namespace {

// Arrays behind one another, each at a multiple of 256 bytes.
class Blob {
 public:
  template <class T>
  size_t append(const std::vector<T>& values) {
    const size_t offset = (bytes_.size() + 255) / 256 * 256;
    bytes_.resize(offset + values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes_.data() + offset, values.data(), values.size() * sizeof(T));
    return offset;
  }

  at::Tensor upload(const at::Device& device) {
    return at::from_blob(bytes_.data(), {static_cast<int64_t>(bytes_.size())}, at::kByte).to(device);
  }

 private:
  std::vector<std::byte> bytes_;
};

void require_hopper(int32_t device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "asking for the compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "asking for the compute capability");
  if (major == 9 && minor == 0) return;
  throw Error(ErrorCode::kUnsupported, "magi: GPU " + std::to_string(device) + " is of compute capability " +
                                           std::to_string(major) + "." + std::to_string(minor) +
                                           "; the kernels are built for 9.0 (sm_90a) alone; choose another backend");
}

void require_size(int64_t tokens, const AttentionShape& shape) {
  if (tokens <= kMaxTokens && shape.heads_q <= kMaxHeads && items(tokens, shape.heads_q) <= kMaxItems) return;
  throw Error(ErrorCode::kInvalidArgument,
              "magi: " + std::to_string(tokens) + " tokens and " + std::to_string(shape.heads_q) +
                  " query heads; the CUDA kernel counts in 32 bits and takes at most " + std::to_string(kMaxTokens) +
                  " tokens, " + std::to_string(kMaxHeads) + " heads and " + std::to_string(kMaxItems) +
                  " pairs of 64 tokens and a head; shorten the packed sequence or split the heads over several calls");
}

// Where this GPU's calls leave their mark: one word that kernels write and the host reads, never freed, as a fault may
// be reported at any time.
uint32_t* begun_word(int32_t device) {
  static std::mutex mutex;
  static std::map<int32_t, uint32_t*> words;
  const std::lock_guard lock(mutex);
  uint32_t*& word = words[device];
  if (word == nullptr) {
    const c10::DeviceGuard guard(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    void* memory = nullptr;
    check(cudaHostAlloc(&memory, sizeof(uint32_t), cudaHostAllocPortable | cudaHostAllocMapped),
          "allocating the mark of launches");
    word = static_cast<uint32_t*>(memory);
    *word = 0;
    watch_launches(device, word);
  }
  return word;
}

}  // namespace

FfaPrepared::FfaPrepared(const AttnMaskSpec& mask, const AttentionShape& shape)
    : shape_(shape), total_q_(mask.total_q()), total_k_(mask.total_k()) {
  require_size(std::max(total_q_, total_k_), shape);
  require_hopper(shape.device_index);
  begun_ = begun_word(shape.device_index);
  const int head_dim = static_cast<int>(shape.head_dim);
  const ForwardPlan forward =
      make_forward_plan(make_tile_plan(mask, {.q = kStrip, .k = kTile}), forward_strips(head_dim));
  const TilePlan tiles = make_tile_plan(mask, {.q = kTile, .k = kTile});
  const BackwardPlan backward = make_backward_plan(tiles, transpose(tiles), backward_rows(head_dim));
  Blob blob;
  const size_t q_records = blob.append(forward.records), k_records = blob.append(backward.records);
  const size_t q_entries = blob.append(forward.entries), k_entries = blob.append(backward.entries);
  const size_t q_masks = blob.append(forward.masks), k_masks = blob.append(backward.masks);
  const size_t ordered_records = blob.append(backward.ordered_records);
  const size_t ordered_entries = blob.append(backward.ordered_entries);
  const size_t writer_begin = blob.append(backward.writer_begin), writers = blob.append(backward.writers);
  const size_t scarce_rows = blob.append(backward.scarce_rows);
  blob_ = blob.upload(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(shape.device_index)));
  const char* base = static_cast<const char*>(blob_.const_data_ptr());
  forward_plan_ = {.records = reinterpret_cast<const QTileRecord*>(base + q_records),
                   .entries = reinterpret_cast<const int2*>(base + q_entries),
                   .masks = reinterpret_cast<const uint32_t*>(base + q_masks),
                   .num_q_tiles = static_cast<int32_t>(forward.records.size())};
  backward_plan_ = {.records = reinterpret_cast<const KTileRecord*>(base + k_records),
                    .entries = reinterpret_cast<const int2*>(base + k_entries),
                    .ordered_records = reinterpret_cast<const KTileRecord*>(base + ordered_records),
                    .ordered_entries = reinterpret_cast<const int2*>(base + ordered_entries),
                    .masks = base + k_masks,
                    .writer_begin = reinterpret_cast<const int32_t*>(base + writer_begin),
                    .writers = reinterpret_cast<const WriterRun*>(base + writers),
                    .scarce_rows = reinterpret_cast<const ScarceRow*>(base + scarce_rows),
                    .num_scarce_rows = static_cast<int32_t>(backward.scarce_rows.size()),
                    .num_k_tiles = tiles.num_k_tiles};
}

}  // namespace attnmux::ffa_sm90
