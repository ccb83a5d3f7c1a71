// Watches the memory of a worker: every tensor on the CPU comes out of an allocator that fills it with NaN, puts a
// guard in front and behind, and counts.
//
//   watch_memory();                        // once, before the first tensor
//   std::string broken = broken_guards();  // empty: nobody wrote outside a buffer so far
//
// A result that a backend forgot to write is NaN instead of what the last owner left there. operator new is counted,
// too. Any thread.
#pragma once

#include <cstdint>
#include <string>

namespace attnmux::conformance {

void watch_memory();

// What was found broken since the last call, in words: guards of live buffers and of those freed in between.
std::string broken_guards();

struct MemoryUse {
  int64_t tensors = 0;  // live buffers of tensors
  int64_t bytes = 0;    // live bytes of tensors and of operator new
  int64_t heap = 0;     // bytes that malloc has handed out, whoever asked
};
MemoryUse memory_use();

// Largest MemoryUse::bytes since reset_peak().
int64_t peak_bytes();
void reset_peak();

}  // namespace attnmux::conformance
