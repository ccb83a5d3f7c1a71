// Rows of a strided tensor into a packed tile of the compute type, and back; a panel of rows transposed.
//
// Packed rows are padded with zeros to whole vectors. Inner stride 1 is the fast way; any other stride, 0 included, is
// gathered element by element. bf16 and fp16 become float on the way in and are rounded to nearest even on the way out.
#pragma once

#include <utility>

#include "simd.h"

namespace attnmux::tiled_cpu {
namespace ATTNMUX_ISA {

// Compute type of a storage type.
template <class S>
struct ComputeType {
  using Type = float;
};
template <>
struct ComputeType<double> {
  using Type = double;
};
template <class S>
using Compute = typename ComputeType<S>::Type;

inline float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float read(float x) { return x; }
inline double read(double x) { return x; }
inline float read(BFloat16 x) { return from_bits(uint32_t{x.bits} << 16); }
// Exponent and mantissa moved into place and rebiased by a product, which also turns subnormals into normals.
inline float read(Float16 x) {
  const uint32_t magnitude = (x.bits & 0x7fffu) << 13;
  const bool special = (x.bits & 0x7c00u) == 0x7c00u;
  const float value = special ? from_bits(magnitude | 0x7f800000u) : from_bits(magnitude) * 0x1p112f;
  return from_bits(to_bits(value) | (x.bits & 0x8000u) << 16);
}

inline void write(float* to, float x) { *to = x; }
inline void write(double* to, double x) { *to = x; }
inline void write(BFloat16* to, float x) {
  const uint32_t bits = to_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  to->bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0u);
}
inline void write(Float16* to, float x) {
  const uint32_t sign = to_bits(x) >> 16 & 0x8000u;
  const uint32_t bits = to_bits(x) & 0x7fffffffu;
  uint32_t half;
  if (bits > 0x7f800000u) {
    half = 0x7e00u;
  } else if (bits >= 0x477ff000u) {  // from 65520 on: rounds to infinity
    half = 0x7c00u;
  } else if (bits < 0x38800000u) {  // below 2^-14: adding 1/2 aligns and rounds a subnormal
    half = to_bits(from_bits(bits) + 0.5f) - 0x3f000000u;
  } else {
    half = (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13;
  }
  to->bits = static_cast<uint16_t>(sign | half);
}

template <class S>
inline const S* row_of(const View& view, int64_t token, int64_t head) {
  return static_cast<const S*>(view.data) + token * view.token + head * view.head;
}

template <class S>
inline void pack_row(const S* from, int64_t stride, int64_t dim, int64_t padded, Compute<S>* to) {
  if (stride == 1) {
    for (int64_t i = 0; i < dim; ++i) to[i] = read(from[i]);
  } else {
    for (int64_t i = 0; i < dim; ++i) to[i] = read(from[i * stride]);
  }
  for (int64_t i = dim; i < padded; ++i) to[i] = 0;
}

// Rows of one head lie too far apart for the processor to foresee them.
constexpr int64_t kRowsAhead = 16;

template <class S>
inline void prefetch_row(const S* row, int64_t dim) {
  for (int64_t i = 0; i < dim; i += 64 / static_cast<int64_t>(sizeof(S))) __builtin_prefetch(row + i, 0, 2);
}

// Tokens [begin, begin + count) of one head: to [count, padded].
template <class S>
inline void pack_rows(const View& view, int64_t begin, int64_t count, int64_t head, int64_t dim, int64_t padded,
                      Compute<S>* to) {
  for (int64_t r = 0; r < count; ++r) {
    prefetch_row(row_of<S>(view, begin + smaller(r + kRowsAhead, count - 1), head), dim);
    pack_row(row_of<S>(view, begin + r, head), view.dim, dim, padded, to + r * padded);
  }
}

template <class T>
inline void zero(T* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = 0;
}

// Exchanges the off-diagonal lanes of two rows that lie `half` apart: `a` keeps its lanes without bit `half` and takes
// those of `b` shifted up by `half`; `b` conversely.
template <class T, int half, int... lane>
inline void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, lane...>) {
  constexpr int w = kWidth<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, ((lane & half) ? w + lane - half : lane)...);
  const Vec<T> high = __builtin_shufflevector(a, b, ((lane & half) ? w + lane : lane + half)...);
  a = low;
  b = high;
}

template <class T, int half>
inline void transpose_rounds(Vec<T>* rows) {
  if constexpr (half < kWidth<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kWidth<T>; ++i) {
      if (!(i & half)) exchange<T, half>(rows[i], rows[i + half], std::make_integer_sequence<int, kWidth<T>>{});
    }
    transpose_rounds<T, 2 * half>(rows);
  }
}

// to [width, ld_to] = transpose of the block whose row i is row(i), in log2(width) rounds.
template <class T, class Row>
inline void transpose_block(const Row& row, T* to, int64_t ld_to) {
  Vec<T> rows[kWidth<T>];
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) rows[i] = row(i);
  transpose_rounds<T, 1>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) store(to + i * ld_to, rows[i]);
}

// from [rows, ld_from] -> to [columns, ld_to], bits unchanged. REQUIRES: rows, columns multiples of the vector width.
template <class T>
inline void transpose(const T* from, int64_t ld_from, int64_t rows, int64_t columns, T* to, int64_t ld_to) {
  for (int64_t r = 0; r < rows; r += kWidth<T>) {
    for (int64_t c = 0; c < columns; c += kWidth<T>) {
      const T* const block = from + r * ld_from + c;
      transpose_block([&](int64_t i) { return load(block + i * ld_from); }, to + c * ld_to + r, ld_to);
    }
  }
}

// from [kPanel, padded] -> to [padded, kPanel], times `scale`. REQUIRES: padded is a multiple of the vector width.
template <class T>
inline void transpose_panel(const T* from, int64_t padded, T scale, T* to) {
  for (int64_t r = 0; r < kPanel<T>; r += kWidth<T>) {
    for (int64_t c = 0; c < padded; c += kWidth<T>) {
      const T* const block = from + r * padded + c;
      transpose_block([&](int64_t i) { return load(block + i * padded) * scale; }, to + c * kPanel<T> + r, kPanel<T>);
    }
  }
}

// Writes scale * from [dim] to a row of the storage type.
template <class S>
inline void unpack_row(const Compute<S>* from, int64_t dim, Compute<S> scale, S* to, int64_t stride) {
  if (stride == 1) {
    for (int64_t i = 0; i < dim; ++i) write(to + i, from[i] * scale);
  } else {
    for (int64_t i = 0; i < dim; ++i) write(to + i * stride, from[i] * scale);
  }
}

}  // namespace ATTNMUX_ISA
}  // namespace attnmux::tiled_cpu
