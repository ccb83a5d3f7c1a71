// Every backend against the float64 oracle on random masks, shapes, strides and scales. Where a backend should say yes
// is written down here a second time: a refusal that should not be, or the other way round, fails too.
//
// RC_PARAMS="seed=7 max_success=100000" draws other and more cases; a failure prints the shrunken case.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "attnmux/backend.h"
#include "attnmux/mask_family.h"
#include "common/compare.h"
#include "oracle/attention_oracle.h"
#include "oracle/cpu_backends.h"
#include "oracle/plain_attention.h"
#include "property/attention_case.h"
#include "property/check.h"

namespace attnmux::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr MaskFamily kFamilies[] = {MaskFamily::kFull,         MaskFamily::kCausal,        MaskFamily::kVarlenFull,
                                    MaskFamily::kVarlenCausal, MaskFamily::kSlidingWindow, MaskFamily::kArbitrary};

// Calls check(name, got, want, plain or undefined) for each of the five results.
template <class Check>
void for_each_result(const AttentionResults& got, const OracleResult& want, const PlainResult& plain,
                     const Check& check) {
  check("out", got.out, want.out, plain.out);
  check("lse", got.lse, want.lse, plain.lse);
  check("dq", got.dq, want.dq, plain.dq);
  check("dk", got.dk, want.dk, plain.dk);
  check("dv", got.dv, want.dv, plain.dv);
}

std::string check_types(const AttentionResults& got, const OracleInputs& inputs) {
  const at::ScalarType dtype = inputs.q.scalar_type();
  for (auto [name, tensor] : {std::pair{"out", got.out}, {"dq", got.dq}, {"dk", got.dk}, {"dv", got.dv}}) {
    if (tensor.scalar_type() != dtype) return std::string(name) + " has dtype " + at::toString(tensor.scalar_type());
  }
  if (got.lse.scalar_type() != (dtype == at::kDouble ? at::kDouble : at::kFloat))
    return std::string("lse has dtype ") + at::toString(got.lse.scalar_type());
  return "";
}

// fp32 to 1e-5 of the magnitude of each element's sum, fp64 to 1e-12.
std::string check_exact(const AttentionResults& got, const OracleResult& want, double relative, double absolute = 0) {
  std::string problems;
  for_each_result(got, want, {}, [&](const char* name, const at::Tensor& tensor, const OracleTensor& oracle, auto&&) {
    const auto result = close_within(tensor, oracle.value, oracle.magnitude * relative + absolute);
    if (!result) problems.append("\n").append(name).append(": ").append(result.message());
  });
  return problems;
}

// One case in bf16 or fp16: each element within four roundings of each term of its sum, for a fused kernel rounds p or
// ds, out as it enters delta, partial sums of query blocks, and the result. Terms below the normal range (fp16 meets
// them) have an absolute error instead.
std::string check_low_precision(const AttentionResults& got, const OracleResult& want, int64_t terms) {
  const bool bf16 = got.out.scalar_type() == at::kBFloat16;
  return check_exact(got, want, bf16 ? 4 * 0x1p-8 : 4 * 0x1p-11, bf16 ? 0 : 4 * 0x1p-24 * static_cast<double>(terms));
}

// Errors of many cases, each relative to the size of its terms: a backend's and the plain implementation's. A ratio
// over many cases, for in a single small one the plain result may be exact by luck.
struct PooledError {
  double backend = 0, plain = 0;  // sums of squares
  int cases = 0;
  double ratio() const { return std::sqrt(backend / plain); }
};

// By backend, result, mask family, and whether query heads share keys.
using PooledErrors = std::map<std::tuple<std::string, std::string, MaskFamily, bool>, PooledError>;

void pool(PooledErrors& pools, const std::string& backend, MaskFamily family, bool grouped, const AttentionResults& got,
          const OracleResult& want, const PlainResult& plain) {
  for_each_result(got, want, plain,
                  [&](const char* name, const at::Tensor& tensor, const OracleTensor& oracle, const at::Tensor& rough) {
                    const double size = oracle.magnitude.norm().item<double>();
                    if (size == 0) return;
                    const auto error = [&](const at::Tensor& result) {
                      const at::Tensor difference = (result - oracle.value).masked_fill(oracle.value == -kInfinity, 0);
                      return difference.norm().item<double>() / size;
                    };
                    PooledError& errors = pools[{backend, name, family, grouped}];
                    errors.backend += std::pow(error(tensor), 2);
                    errors.plain += std::pow(error(rough), 2);
                    ++errors.cases;
                  });
}

// bf16 and fp16: at most twice the error of the plain implementation.
void check_pools(const PooledErrors& pools) {
  std::map<std::pair<std::string, std::string>, double> worst;
  for (const auto& [key, errors] : pools) {
    const auto& [backend, result, family, grouped] = key;
    if (errors.cases < 10) continue;
    EXPECT_LE(errors.ratio(), 2) << backend << ", " << result << ", " << to_string(family)
                                 << (grouped ? ", grouped heads" : "") << ": errors of " << errors.cases
                                 << " cases relative to those of the plain implementation";
    double& entry = worst[{backend, result}];
    entry = std::max(entry, errors.ratio());
  }
  std::printf("largest error relative to the plain implementation's\n");
  for (const auto& [key, ratio] : worst) std::printf("  %s %s %.2f\n", key.first.c_str(), key.second.c_str(), ratio);
}

std::string check_refusal(const Support& support) {
  for (const Reason& reason : support.reasons) {
    if (reason.got.empty() || reason.want.empty() || reason.hint.empty())
      return "a refusal without explanation: " + reason.to_string();
  }
  return "";
}

// How many cases of a mask family a backend executed.
using Tally = std::map<std::string, std::map<MaskFamily, int>>;

void print(const Tally& executed) {
  std::printf("%-14s", "executed");
  for (MaskFamily family : kFamilies) std::printf(" %15s", std::string(to_string(family)).c_str());
  for (const auto& [name, families] : executed) {
    std::printf("\n%-14s", name.c_str());
    for (MaskFamily family : kFamilies) std::printf(" %15d", families.count(family) ? families.at(family) : 0);
  }
  std::printf("\n");
}

struct Precision {
  const char* name;
  DType dtype;
  int cases;
  int threads = 1;
};

class AttentionProperty : public ::testing::TestWithParam<Precision> {};

TEST_P(AttentionProperty, BackendsAgreeWithTheOracle) {
  const DType dtype = GetParam().dtype;
  at::set_num_threads(GetParam().threads);
  const std::vector<CpuBackend> list = cpu_backends();
  Tally executed;
  PooledErrors pools;
  check_property(GetParam().cases, [&] {
    const AttentionCase c = *random_attention_case();
    const MaskFamily family = classify(c.mask);
    const OracleInputs inputs = make_tensors(c, dtype);
    const AttentionRequest request = request_of(c.mask, inputs);
    const OracleResult want = oracle_attention(c.mask, inputs);
    const bool low_precision = dtype == DType::kBFloat16 || dtype == DType::kFloat16;
    const PlainResult plain = low_precision ? plain_attention(c.mask, inputs) : PlainResult{};
    for (const CpuBackend& candidate : list) {
      const Support support = candidate.backend->query(request);
      const bool should_take = candidate.takes(family, c.head_dim, c.head_dim_v);
      std::string problems;
      if (support.ok() != should_take) {
        problems = should_take ? "refuses: " + support.reasons[0].to_string() : "takes what it should refuse";
      } else if (!support.ok()) {
        problems = check_refusal(support);
      } else {
        const AttentionResults got = run(*candidate.backend, c.mask, inputs);
        problems = check_types(got, inputs);
        problems += low_precision ? check_low_precision(got, want, c.group * (c.mask.total_q() + c.mask.total_k()))
                                  : check_exact(got, want, dtype == DType::kFloat64 ? 1e-12 : 1e-5);
        ++executed[candidate.name][family];
        if (low_precision) pool(pools, candidate.name, family, c.group > 1, got, want, plain);
      }
      if (!problems.empty())
        RC_FAIL(candidate.name + " on a mask of family " + std::string(to_string(family)) + ": " + problems);
    }
  });
  if (HasFailure()) return;
  print(executed);
  if (!pools.empty()) check_pools(pools);
  for (const CpuBackend& candidate : list) {
    for (MaskFamily family : kFamilies) {
      if (!candidate.takes(family)) continue;
      EXPECT_GT(executed[candidate.name][family], 0)
          << candidate.name << " ran no mask of family " << to_string(family);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, AttentionProperty,
                         ::testing::Values(Precision{"fp32", DType::kFloat32, 2500},
                                           Precision{"fp32_on_two_threads", DType::kFloat32, 60, /*threads=*/2},
                                           Precision{"fp64", DType::kFloat64, 500},
                                           Precision{"bf16", DType::kBFloat16, 800},
                                           Precision{"fp16", DType::kFloat16, 400}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace attnmux::testing
