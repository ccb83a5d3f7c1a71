#include "conformance/values.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/spelling.h"
#include "conformance/random.h"
#include "conformance/subject.h"

namespace attnmux::conformance {
namespace {

// About normal: the sum of four uniform numbers, mean 0 and variance 1, never beyond 3.5. In fp32, so that fp64 and
// fp32 cases of one seed hold the same numbers.
at::Tensor random_tensor(Random& random, int64_t tokens, int64_t heads, int64_t dim) {
  at::Tensor result = at::empty({tokens, heads, dim}, at::kFloat);
  float* data = result.data_ptr<float>();
  for (int64_t i = 0; i < result.numel(); ++i) {
    const uint64_t bits = random.next();
    const uint64_t sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    data[i] = static_cast<float>((static_cast<double>(sum) / 65536 - 2) * std::sqrt(3.0));
  }
  return result;
}

// Keys that some row does not attend although it attends their neighbour.
std::vector<int64_t> keys_just_outside(const Case& c, const CaseMask& mask) {
  constexpr int64_t kRows = 6;
  std::vector<int64_t> keys;
  for (int64_t row = 0; row < c.sq; row += std::max<int64_t>(1, c.sq / kRows)) {
    for (int64_t key = 0; key + 1 < c.sk; ++key) {
      const bool here = mask.allowed(row, key), next = mask.allowed(row, key + 1);
      if (here != next) keys.push_back(here ? key + 1 : key);
    }
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

}  // namespace

void require_values(const std::string& values) {
  const std::vector<std::string> known = {"randn", "onehot", "const",      "large",
                                          "bait",  "merge",  "scale-zero", "scale-negative"};
  if (std::find(known.begin(), known.end(), values) == known.end()) {
    throw Error(ErrorCode::kUsage, unknown_word("values", values, known));
  }
}

Inputs inputs_of(const Case& c, const CaseMask& mask) {
  Random random(c.seed);
  Inputs in{.q = random_tensor(random, c.sq, c.hq, c.d),
            .k = random_tensor(random, c.sk, c.hk, c.d),
            .v = random_tensor(random, c.sk, c.hk, c.head_dim_v()),
            .dout = random_tensor(random, c.sq, c.hq, c.head_dim_v()),
            .softmax_scale = 0.8 / std::sqrt(static_cast<double>(c.d))};
  if (c.values == "onehot") {
    in.v.zero_();
    for (int64_t j = 0; j < c.sk; ++j) in.v.select(0, j).select(1, j % c.head_dim_v()).fill_(1);
  } else if (c.values == "const") {
    in.v.fill_(1);
  } else if (c.values == "large") {
    in.q.mul_(7);
    in.k.mul_(7);
  } else if (c.values == "bait") {
    constexpr double kQuery = 6, kScore = 30;
    in.q.select(2, 0).fill_(kQuery);
    in.k.select(2, 0).zero_();
    for (int64_t key : keys_just_outside(c, mask)) {
      in.k.select(0, key).select(1, 0).fill_(kScore / (kQuery * in.softmax_scale));
    }
  } else if (c.values == "merge") {
    constexpr double kScore = 40;
    in.q.select(2, 0).fill_(std::sqrt(kScore / in.softmax_scale));
    in.k.select(2, 0).fill_(std::sqrt(kScore / in.softmax_scale));
    in.v.slice(0, 0, c.sk / 2).fill_(1);
    in.v.slice(0, c.sk / 2).fill_(-1);
  } else if (c.values == "scale-zero") {
    in.softmax_scale = 0;
  } else if (c.values == "scale-negative") {
    in.softmax_scale = -in.softmax_scale;
  }
  const at::ScalarType dtype = scalar_type(c.dt);
  for (at::Tensor* tensor : {&in.q, &in.k, &in.v, &in.dout}) *tensor = tensor->to(dtype);
  return in;
}

}  // namespace attnmux::conformance
