// 128-bit content hash of plain data, the same on every machine (little-endian input is assumed and checked).
//
//   Hasher h;  h.add(int64_t{7});  h.add_bytes(data, size);  Hash128 id = h.finish();
//
// Not cryptographic: it tells masks, plans and tables apart, it does not authenticate them.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "attnmux/export.h"

namespace attnmux {

struct Hash128 {
  uint64_t hi = 0;
  uint64_t lo = 0;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
};

// 32 lower-case hexadecimal digits.
ATTNMUX_API std::string to_string(const Hash128& hash);

class ATTNMUX_API Hasher {
 public:
  void add_bytes(const void* data, size_t size);
  template <class T>
    requires std::is_arithmetic_v<T> || std::is_enum_v<T>
  void add(T value) {
    add_bytes(&value, sizeof value);
  }
  Hash128 finish() const;

 private:
  uint64_t state_[2] = {0x9e3779b97f4a7c15u, 0xc2b2ae3d27d4eb4fu};
  uint64_t length_ = 0;
};

}  // namespace attnmux

template <>
struct std::hash<attnmux::Hash128> {
  size_t operator()(const attnmux::Hash128& hash) const noexcept { return hash.lo; }
};
