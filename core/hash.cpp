#include "attnmux/hash.h"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

namespace attnmux {
namespace {

static_assert(std::endian::native == std::endian::little, "hashes are defined over little-endian data");

// splitmix64's finaliser (Steele et al., "Fast splittable pseudorandom number generators", 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

void Hasher::add_bytes(const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  length_ += size;
  while (size > 0) {
    uint64_t word = 0;
    const size_t take = size < 8 ? size : 8;
    std::memcpy(&word, bytes, take);
    state_[0] = mix(state_[0] ^ word) + take;
    state_[1] = std::rotl(state_[1], 29) ^ mix(word + state_[0]);
    bytes += take;
    size -= take;
  }
}

Hash128 Hasher::finish() const {
  const uint64_t a = mix(state_[0] ^ length_);
  const uint64_t b = mix(state_[1] + a);
  return {a ^ std::rotl(b, 17), b};
}

std::string to_string(const Hash128& hash) {
  std::array<char, 33> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(hash.hi),
                static_cast<unsigned long long>(hash.lo));
  return text.data();
}

}  // namespace attnmux
