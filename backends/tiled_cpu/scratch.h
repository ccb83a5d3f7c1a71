// One worker's scratch buffer cut into arrays, each aligned to 64 bytes.
#pragma once

#include "simd.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// Addresses are numbers here, so that a null base may be cut up just to learn the size.
class ScratchParts {
 public:
  explicit ScratchParts(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  template <class T>
  T* take(int64_t count) {
    T* const at = reinterpret_cast<T*>(base_ + used_);
    used_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), 64));
    return at;
  }
  size_t used() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
