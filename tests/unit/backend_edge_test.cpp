// Every CPU backend on the inputs at the edge: nothing to attend, one token, empty documents, strides of 0, logits in
// the tens of thousands, NaN, several threads, a Prepared of another backend, requests that must be refused.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/mask_builders.h"
#include "common/compare.h"
#include "oracle/attention_oracle.h"
#include "oracle/cpu_backends.h"

namespace attnmux::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor normal(at::IntArrayRef sizes, at::ScalarType dtype = at::kFloat) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

OracleInputs random_inputs(const AttnMaskSpec& mask, int64_t heads_q, int64_t heads_kv, int64_t head_dim,
                           at::ScalarType dtype = at::kFloat) {
  return {.q = normal({mask.total_q(), heads_q, head_dim}, dtype),
          .k = normal({mask.total_k(), heads_kv, head_dim}, dtype),
          .v = normal({mask.total_k(), heads_kv, head_dim}, dtype),
          .dout = normal({mask.total_q(), heads_q, head_dim}, dtype),
          .softmax_scale = 1 / std::sqrt(static_cast<double>(head_dim))};
}

// bf16: four roundings of each term of a sum.
double relative_tolerance(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 4 * 0x1p-8 : 1e-5; }

class BackendEdge : public ::testing::TestWithParam<CpuBackend> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    at::manual_seed(11);
  }

  const AttentionBackend& backend() const { return *GetParam().backend; }

  // False where the backend may refuse the mask, and does.
  bool takes(const AttnMaskSpec& mask, const OracleInputs& inputs) const {
    const bool answer = backend().query(request_of(mask, inputs)).ok();
    EXPECT_EQ(answer, GetParam().takes(classify(mask), inputs.q.size(2), inputs.v.size(2)));
    return answer;
  }

  void expect_right(const AttnMaskSpec& mask, const OracleInputs& inputs, double relative = 1e-5) const {
    expect_right(mask, inputs, relative, relative);
  }

  void expect_right(const AttnMaskSpec& mask, const OracleInputs& inputs, double relative,
                    double relative_backward) const {
    if (!takes(mask, inputs)) return;
    const OracleResult want = oracle_attention(mask, inputs);
    const AttentionResults got = run(backend(), mask, inputs);
    constexpr double kUnderflow = std::numeric_limits<float>::min();
    const auto expect = [&](const char* name, const at::Tensor& result, const OracleTensor& oracle, double tolerance) {
      EXPECT_TRUE(close_within(result, oracle.value, oracle.magnitude * tolerance + kUnderflow)) << name;
    };
    expect("out", got.out, want.out, relative);
    expect("lse", got.lse, want.lse, relative);
    expect("dq", got.dq, want.dq, relative_backward);
    expect("dk", got.dk, want.dk, relative_backward);
    expect("dv", got.dv, want.dv, relative_backward);
  }

  // In fp32 and bf16, for they may run on kernels of their own.
  void expect_right(const AttnMaskSpec& mask, int64_t head_dim = 8) const {
    for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      SCOPED_TRACE(at::toString(dtype));
      expect_right(mask, random_inputs(mask, 4, 2, head_dim, dtype), relative_tolerance(dtype));
    }
  }
};

TEST_P(BackendEdge, NoQueries) { expect_right(full_mask(0, 5)); }
TEST_P(BackendEdge, NoKeys) { expect_right(full_mask(5, 0)); }
TEST_P(BackendEdge, NoTokens) { expect_right(full_mask(0, 0)); }
TEST_P(BackendEdge, NoPairs) { expect_right(AttnMaskSpec({}, 37, 21)); }
TEST_P(BackendEdge, OneToken) { expect_right(causal_mask(1, 1)); }
TEST_P(BackendEdge, OneQuery) { expect_right(causal_mask(1, 200)); }
TEST_P(BackendEdge, OneKey) { expect_right(full_mask(200, 1)); }
TEST_P(BackendEdge, MoreQueriesThanKeys) { expect_right(causal_mask(70, 3)); }
TEST_P(BackendEdge, DocumentsOfNoneAndOneToken) {
  expect_right(varlen_mask({0, 1, 0, 1, 1, 40, 0, 1}, MaskType::kCausal));
  expect_right(varlen_mask({0, 1, 0, 1, 1, 40, 0, 1}, MaskType::kFull));
}
TEST_P(BackendEdge, DocumentWithoutKeysBetweenOthers) {
  expect_right(AttnMaskSpec({{.q = {0, 3}, .k = {0, 3}}, {.q = {9, 12}, .k = {3, 8}}}, 14, 8));
}
TEST_P(BackendEdge, HeadDimOne) { expect_right(causal_mask(65, 65), /*head_dim=*/1); }
TEST_P(BackendEdge, HeadDimOfNoVectorMultiple) { expect_right(causal_mask(33, 33), /*head_dim=*/79); }
TEST_P(BackendEdge, LengthsAroundTiles) {
  for (int64_t length : {15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 257}) {
    SCOPED_TRACE(length);
    expect_right(causal_mask(length, length));
  }
}
// ATen's kernel cuts keys into blocks of 512: here whole blocks of a row are not attended.
TEST_P(BackendEdge, KeysFarApart) {
  expect_right(AttnMaskSpec({{.q = {0, 9}, .k = {1300, 1301}}, {.q = {3, 5}, .k = {0, 1}}}, 9, 1301));
}

// Long enough, with enough heads, that magi's backward gives a worker several tiles of keys. Expected values come from
// the reference in float64, which is itself compared with the oracle on small masks.
struct LongCase {
  AttnMaskSpec mask;
  OracleInputs inputs;
  AttentionResults want;
};

const std::vector<LongCase>& long_cases() {
  static const std::vector<LongCase> cases = [] {
    std::vector<LongCase> list;
    for (const AttnMaskSpec& mask : {varlen_mask({700, 1, 450}, MaskType::kCausal),
                                     sliding_window_mask({900, 251}, {.left = 300, .right = 0, .sink_tokens = 3}),
                                     AttnMaskSpec({{.q = {0, 1151}, .k = {0, 300}, .type = MaskType::kBiCausal},
                                                   {.q = {100, 900}, .k = {200, 1100}, .type = MaskType::kInvCausal},
                                                   {.q = {640, 1151}, .k = {1000, 1151}}},
                                                  1151, 1151)}) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const OracleInputs in = random_inputs(mask, 8, 8, 8, dtype);
        const OracleInputs exact = {in.q.to(at::kDouble), in.k.to(at::kDouble), in.v.to(at::kDouble),
                                    in.dout.to(at::kDouble), in.softmax_scale};
        list.push_back({mask, in, run(*cpu_backends()[0].backend, mask, exact)});
      }
    }
    return list;
  }();
  return cases;
}

TEST_P(BackendEdge, LongerThanASegmentOfTiles) {
  for (const auto& [mask, inputs, want] : long_cases()) {
    SCOPED_TRACE(std::string(to_string(classify(mask))) + " " + at::toString(inputs.q.scalar_type()));
    if (!takes(mask, inputs)) continue;
    const double relative = relative_tolerance(inputs.q.scalar_type());
    const AttentionResults got = run(backend(), mask, inputs);
    const auto expect = [&](const char* name, const at::Tensor& result, const at::Tensor& expected) {
      const double largest = expected.masked_fill(expected == -kInfinity, 0).abs().max().item<double>();
      EXPECT_TRUE(close(result, expected, {.absolute = relative * largest})) << name;
    };
    expect("out", got.out, want.out);
    expect("lse", got.lse, want.lse);
    expect("dq", got.dq, want.dq);
    expect("dk", got.dk, want.dk);
    expect("dv", got.dv, want.dv);
  }
}

TEST_P(BackendEdge, OneTokenBroadcastToKeysAndValues) {
  const AttnMaskSpec mask = causal_mask(40, 40);
  OracleInputs inputs = random_inputs(mask, 4, 2, 8);
  inputs.k = normal({1, 1, 8}).expand({40, 2, 8});
  inputs.v = normal({1, 1, 8}).expand({40, 2, 8});
  expect_right(mask, inputs);
}

TEST_P(BackendEdge, OneScalarBroadcastToAll) {
  const AttnMaskSpec mask = causal_mask(40, 40);
  OracleInputs inputs = random_inputs(mask, 4, 2, 8);
  inputs.dout = at::full({}, 0.5).expand({40, 4, 8});  // what sum().backward() hands down
  expect_right(mask, inputs);
  inputs.q = at::full({}, 0.5).expand({40, 4, 8});
  inputs.k = at::full({}, 0.25).expand({40, 2, 8});
  inputs.v = at::full({}, 2.0).expand({40, 2, 8});
  expect_right(mask, inputs);
}

TEST_P(BackendEdge, OneElementBehindAnAlignedAddress) {
  const AttnMaskSpec mask = causal_mask(33, 33);
  for (at::ScalarType dtype : {at::kFloat, at::kDouble, at::kBFloat16}) {
    OracleInputs inputs = random_inputs(mask, 4, 2, 16, dtype);
    for (at::Tensor* tensor : {&inputs.q, &inputs.k, &inputs.v, &inputs.dout}) {
      const at::Tensor shifted = at::empty({tensor->numel() + 1}, tensor->options()).slice(0, 1).view(tensor->sizes());
      *tensor = shifted.copy_(*tensor);
    }
    expect_right(mask, inputs, relative_tolerance(dtype));
  }
}

// Integers, so that every score is exact in fp32 and forward has no excuse. Backward starts from an lse that fp32 holds
// to half a unit in its last place, perhaps turned into base 2, so that p = exp(score - lse) is known no better.
TEST_P(BackendEdge, LogitsInTheTensOfThousands) {
  const AttnMaskSpec mask = causal_mask(50, 50);
  OracleInputs inputs = random_inputs(mask, 4, 2, 4);
  inputs.q = at::randint(-90, 91, {50, 4, 4}).to(at::kFloat);
  inputs.k = at::randint(-90, 91, {50, 2, 4}).to(at::kFloat);
  inputs.softmax_scale = 1;
  const double largest_lse = oracle_attention(mask, inputs).lse.value.abs().max().item<double>();
  EXPECT_GT(largest_lse, 1e4);
  expect_right(mask, inputs, 1e-5, 1e-5 + largest_lse * 0x1p-22);
}

TEST_P(BackendEdge, ScalesThatAreNotPositive) {
  for (double scale : {0.0, -0.3}) {
    SCOPED_TRACE(scale);
    for (const AttnMaskSpec& mask : {causal_mask(40, 40), varlen_mask({7, 12}, MaskType::kCausal), full_mask(9, 30)}) {
      OracleInputs inputs = random_inputs(mask, 4, 2, 8);
      inputs.softmax_scale = scale;
      expect_right(mask, inputs);
    }
  }
}

// No backend may hide a NaN or an infinity from the rows that attend it: a training run stops on the loss it spoils.
// Rows that do not attend it may be spoilt, too (a masked product is still a product).
class BackendEdgeNonFinite : public BackendEdge {
 protected:
  // `poison` in one element of q, k or v of token 20.
  void expect_spoilt_rows(double poison, char where, at::ScalarType dtype) const {
    const AttnMaskSpec mask = causal_mask(40, 40);
    const OracleInputs inputs = random_inputs(mask, 1, 1, 8, dtype);
    (where == 'q' ? inputs.q : where == 'k' ? inputs.k : inputs.v)[20][0][3] = poison;
    // An infinite score of the wrong sign is an ordinary zero of the softmax.
    if (where == 'q') inputs.k.slice(2, 3, 4).abs_();
    if (where == 'k') inputs.q.slice(2, 3, 4).abs_();
    const ForwardResult result =
        backend().forward(*backend().prepare(mask, shape_of(inputs)),
                          {.q = inputs.q, .k = inputs.k, .v = inputs.v, .softmax_scale = inputs.softmax_scale});
    const at::Tensor finite_rows = result.out.isfinite().all(2).squeeze(1);
    for (int64_t row = 20; row < (where == 'q' ? 21 : 40); ++row)
      EXPECT_FALSE(finite_rows[row].item<bool>()) << "row " << row << " hides it";
  }
};

TEST_P(BackendEdgeNonFinite, ReachesTheRowsThatAttendIt) {
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (double poison : {kNan, kInfinity}) {
      for (char where : {'q', 'k', 'v'}) {
        SCOPED_TRACE(std::string(at::toString(dtype)) + " " + std::to_string(poison) + " in " + where);
        expect_spoilt_rows(poison, where, dtype);
      }
    }
  }
}

TEST_P(BackendEdgeNonFinite, ReachesTheGradients) {
  const AttnMaskSpec mask = causal_mask(40, 40);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(at::toString(dtype));
    OracleInputs inputs = random_inputs(mask, 1, 1, 8, dtype);
    inputs.dout[20][0][3] = kNan;
    const AttentionResults got = run(backend(), mask, inputs);
    EXPECT_FALSE(got.dq[20].isfinite().any().item<bool>());
    EXPECT_FALSE(got.dk.slice(0, 0, 21).isfinite().all(2).any().item<bool>());
    EXPECT_FALSE(got.dv.slice(0, 0, 21).isfinite().all(2).any().item<bool>());
  }
}

TEST_P(BackendEdge, InputsStayAsTheyWere) {
  const AttnMaskSpec mask = varlen_mask({20, 13}, MaskType::kCausal);
  const OracleInputs inputs = random_inputs(mask, 4, 2, 8);
  const OracleInputs before = {inputs.q.clone(), inputs.k.clone(), inputs.v.clone(), inputs.dout.clone(), 1};
  run(backend(), mask, inputs);
  EXPECT_TRUE(at::equal(inputs.q, before.q));
  EXPECT_TRUE(at::equal(inputs.k, before.k));
  EXPECT_TRUE(at::equal(inputs.v, before.v));
  EXPECT_TRUE(at::equal(inputs.dout, before.dout));
}

TEST_P(BackendEdge, SameBitsInEveryRun) {
  at::set_num_threads(2);
  const AttnMaskSpec mask = varlen_mask({200, 313}, MaskType::kCausal);
  const OracleInputs inputs = random_inputs(mask, 4, 2, 16);
  const AttentionResults first = run(backend(), mask, inputs);
  for (int repetition = 0; repetition < 3; ++repetition) {
    const AttentionResults again = run(backend(), mask, inputs);
    EXPECT_TRUE(close(again.out, first.out, {})) << "out";
    EXPECT_TRUE(close(again.lse, first.lse, {})) << "lse";
    EXPECT_TRUE(close(again.dq, first.dq, {})) << "dq";
    EXPECT_TRUE(close(again.dk, first.dk, {})) << "dk";
    EXPECT_TRUE(close(again.dv, first.dv, {})) << "dv";
  }
}

TEST_P(BackendEdge, OnePreparedMaskServesSeveralThreads) {
  const AttnMaskSpec mask = varlen_mask({90, 40}, MaskType::kCausal);
  const OracleInputs inputs = random_inputs(mask, 4, 2, 16);
  const auto prepared = backend().prepare(mask, shape_of(inputs));
  const auto forward = [&] {
    return backend()
        .forward(*prepared, {.q = inputs.q, .k = inputs.k, .v = inputs.v, .softmax_scale = inputs.softmax_scale})
        .out;
  };
  const at::Tensor want = forward();
  std::vector<at::Tensor> got(4);
  std::vector<std::thread> threads;
  for (at::Tensor& out : got) threads.emplace_back([&] { out = forward(); });
  for (std::thread& thread : threads) thread.join();
  for (const at::Tensor& out : got) EXPECT_TRUE(close(out, want, {.absolute = 1e-6}));
}

struct ForeignPrepared final : Prepared {};

TEST_P(BackendEdge, PreparedOfAnotherBackendIsRefused) {
  const OracleInputs inputs = random_inputs(full_mask(3, 3), 1, 1, 8);
  try {
    backend().forward(ForeignPrepared(), {.q = inputs.q, .k = inputs.k, .v = inputs.v});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kContractBroken) << error.what();
  }
}

TEST_P(BackendEdge, RefusesAllAtOnceWithCodes) {
  const AttentionRequest request = {.masks = {MaskFamily::kFull},
                                    .heads_q = 3,
                                    .heads_kv = 2,
                                    .head_dim = 0,
                                    .head_dim_v = 8,
                                    .device = DeviceKind::kCuda,
                                    .softcap = 30,
                                    .attention_sink = true,
                                    .dropout = 0.1};
  std::vector<std::string> codes;
  for (const Reason& reason : backend().query(request).reasons) codes.emplace_back(to_string(reason.code));
  for (ReasonCode code : {ReasonCode::kHeads, ReasonCode::kHeadDim, ReasonCode::kDevice, ReasonCode::kSoftcap,
                          ReasonCode::kSink, ReasonCode::kDropout}) {
    if (code == ReasonCode::kDevice && backend().info().id == "reference") continue;  // runs anywhere
    EXPECT_NE(std::find(codes.begin(), codes.end(), to_string(code)), codes.end()) << to_string(code);
  }
}

// Quadratic backends say so before a model is built, and where no length was announced when they see the mask.
TEST_P(BackendEdge, LengthIsRefusedWhereMemoryIsQuadratic) {
  const std::string id = backend().info().id;
  const bool quadratic = id == "reference" || id == "sdpa";
  const AttentionRequest request = {.masks = {MaskFamily::kCausal}, .max_tokens = 1 << 20};
  EXPECT_EQ(backend().query(request).ok(), !quadratic);
  if (!quadratic) return;
  try {
    backend().prepare(causal_mask(1 << 20, 1 << 20), {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfEnvelope) << error.what();
  }
}

TEST(FlashBackend, MaskBeyondItsFamiliesIsRefusedByName) {
  const auto flash = cpu_backends()[2];
  ASSERT_EQ(flash.name, "flash");
  try {
    flash.backend->prepare(sliding_window_mask({40}, {.left = 3}), {});
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfEnvelope);
    EXPECT_NE(std::string(error.what()).find("sliding_window"), std::string::npos) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(, BackendEdgeNonFinite, ::testing::ValuesIn(cpu_backends()),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(, BackendEdge, ::testing::ValuesIn(cpu_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux::testing
