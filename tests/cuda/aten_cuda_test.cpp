// The plugins reference, sdpa and flash on a GPU against float64, forward and backward; and what they refuse there.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "attnmux/mask_family.h"
#include "flash/flash_cuda.h"
#include "gpu.h"
#include "mask_cases.h"
#include "reference/reference_backend.h"
#include "sdpa/sdpa_cuda.h"

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::shared_ptr<const AttentionBackend> backend_named(const std::string& id) {
  return id == "reference" ? make_reference_backend()
         : id == "sdpa"    ? make_sdpa_cuda_backend()
                           : make_flash_cuda_backend();
}

struct Precision {
  DType dtype;
  at::ScalarType scalar_type;
  double error;  // of a result, relative in norm
};

constexpr Precision kPrecisions[] = {{DType::kBFloat16, at::kBFloat16, 1e-2},
                                     {DType::kFloat16, at::kHalf, 2e-3},
                                     {DType::kFloat32, at::kFloat, 1e-4},
                                     {DType::kFloat64, at::kDouble, 1e-12}};

double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  const double error = (actual.to(at::kDouble) - expected).norm().item<double>();
  const double size = expected.norm().item<double>();
  if (error != error) return kInfinity;
  return size == 0 ? error : error / size;
}

AttentionRequest request_for_mask(const AttnMaskSpec& mask, const AttentionShape& shape) {
  return {.masks = {classify(mask)},
          .cross_lengths = mask.total_q() != mask.total_k(),
          .empty_rows = true,
          .dtype = shape.dtype,
          .heads_q = shape.heads_q,
          .heads_kv = shape.heads_kv,
          .head_dim = shape.head_dim,
          .max_tokens = std::max(mask.total_q(), mask.total_k()),
          .device = DeviceKind::kCuda,
          .device_arch = 90,
          .training = true};
}

class AtenCuda : public ::testing::TestWithParam<std::tuple<std::string, testing::MaskCase>> {};

TEST_P(AtenCuda, AgreesWithFloat64) {
  SKIP_WITHOUT_HOPPER();
  const auto& [id, mask_case] = GetParam();
  const AttnMaskSpec& mask = mask_case.mask;
  const auto backend = backend_named(id);
  const at::Tensor attended = testing::attended_pairs(mask).cuda();
  int taken = 0;
  for (const Precision& precision : kPrecisions) {
    for (const int64_t head_dim : {64, 128}) {
      for (const double scale : {0.11, -0.07}) {
        SCOPED_TRACE(std::string(to_string(precision.dtype)) + ", head_dim " + std::to_string(head_dim) + ", scale " +
                     std::to_string(scale));
        const AttentionShape shape = {.heads_q = 4,
                                      .heads_kv = 2,
                                      .head_dim = head_dim,
                                      .head_dim_v = head_dim,
                                      .dtype = precision.dtype,
                                      .device = DeviceKind::kCuda};
        if (!backend->query(request_for_mask(mask, shape)).ok()) continue;
        ++taken;
        const auto options = at::device(at::kCUDA).dtype(precision.scalar_type);
        const at::Tensor q = at::randn({mask.total_q(), 4, head_dim}, options);
        // Heads of one buffer: strides that are not those of a contiguous tensor, and a base that is not aligned.
        const at::Tensor kv = at::randn({mask.total_k(), 4, head_dim + 1}, options);
        const at::Tensor k = kv.narrow(1, 0, 2).narrow(2, 1, head_dim), v = kv.narrow(1, 2, 2).narrow(2, 0, head_dim);
        const at::Tensor dout = at::randn_like(q);
        const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
        const testing::DenseResult want =
            testing::dense_attention(attended, wide(q), wide(k), wide(v), wide(dout), scale);

        const auto prepared = backend->prepare(mask, shape);
        testing::poison({q, k});
        const ForwardResult got = backend->forward(*prepared, {q, k, v, scale});
        EXPECT_EQ(got.out.sizes(), q.sizes());
        EXPECT_LE(relative_error(got.out, want.out), precision.error) << "out";
        ASSERT_EQ(got.lse.sizes(), want.lse.sizes());
        const at::Tensor empty = want.lse == -kInfinity;
        EXPECT_TRUE(at::equal(got.lse == -kInfinity, empty)) << "rows without keys";
        const at::Tensor lse = got.lse.masked_fill(empty, 0), want_lse = want.lse.masked_fill(empty, 0);
        EXPECT_LE(relative_error(lse, want_lse), std::min(precision.error, 1e-4)) << "lse";
        testing::poison({q, k});
        const BackwardResult grads = backend->backward(
            *prepared, {.dout = dout, .q = q, .k = k, .v = v, .out = got.out, .lse = got.lse, .softmax_scale = scale});
        EXPECT_LE(relative_error(grads.dq, want.dq), precision.error) << "dq";
        EXPECT_LE(relative_error(grads.dk, want.dk), precision.error) << "dk";
        EXPECT_LE(relative_error(grads.dv, want.dv), precision.error) << "dv";
      }
    }
  }
  if (id != "flash") {
    EXPECT_GT(taken, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Masks, AtenCuda,
                         ::testing::Combine(::testing::Values("reference", "sdpa", "flash"),
                                            ::testing::ValuesIn(testing::mask_cases())),
                         [](const auto& info) { return std::get<0>(info.param) + "_" + std::get<1>(info.param).name; });

std::vector<ReasonCode> refusals(const std::string& id, const AttentionRequest& request) {
  std::vector<ReasonCode> codes;
  for (const Reason& reason : backend_named(id)->query(request).reasons) codes.push_back(reason.code);
  return codes;
}

using Codes = std::vector<ReasonCode>;

TEST(AtenCudaSupport, EachReasonIsNamed) {
  const AttentionRequest request = {.masks = {MaskFamily::kArbitrary},
                                    .dtype = DType::kFloat64,
                                    .heads_q = 3,
                                    .heads_kv = 2,
                                    .head_dim = 61,
                                    .head_dim_v = 32,
                                    .max_tokens = int64_t{1} << 31,
                                    .device = DeviceKind::kCuda,
                                    .device_arch = 75,
                                    .training = true,
                                    .deterministic = true,
                                    .softcap = 30,
                                    .attention_sink = true,
                                    .dropout = 0.1};
  EXPECT_EQ(refusals("sdpa", request),
            (Codes{ReasonCode::kDType, ReasonCode::kHeads, ReasonCode::kHeadDim, ReasonCode::kHeadDimV,
                   ReasonCode::kLength, ReasonCode::kLength, ReasonCode::kDeviceArch, ReasonCode::kDeterministic,
                   ReasonCode::kSoftcap, ReasonCode::kSink, ReasonCode::kDropout}));
  EXPECT_EQ(refusals("flash", request),
            (Codes{ReasonCode::kMaskType, ReasonCode::kDType, ReasonCode::kHeads, ReasonCode::kHeadDim,
                   ReasonCode::kHeadDimV, ReasonCode::kLength, ReasonCode::kDeviceArch, ReasonCode::kDeterministic,
                   ReasonCode::kSoftcap, ReasonCode::kSink, ReasonCode::kDropout}));
}

TEST(AtenCudaSupport, LongMasksAreTakenWhereNoMatrixIsNeeded) {
  AttentionRequest request = {.masks = {MaskFamily::kCausal},
                              .dtype = DType::kBFloat16,
                              .heads_q = 32,
                              .heads_kv = 8,
                              .head_dim = 128,
                              .max_tokens = 1 << 17,
                              .device = DeviceKind::kCuda,
                              .device_arch = 90,
                              .training = true};
  EXPECT_EQ(refusals("sdpa", request), Codes{});
  EXPECT_EQ(refusals("flash", request), Codes{});
  request.cross_lengths = true;
  EXPECT_EQ(refusals("sdpa", request), Codes{ReasonCode::kLength});
  request.masks = {MaskFamily::kSlidingWindow};
  request.cross_lengths = false;
  EXPECT_EQ(refusals("sdpa", request), Codes{ReasonCode::kLength});
  EXPECT_EQ(refusals("flash", request), Codes{});
  request.cp_size = 2;
  EXPECT_EQ(refusals("flash", request), Codes{ReasonCode::kCpSize});
}

TEST(AtenCudaSupport, DeterminismIsAskedOfTheBackwardAlone) {
  const AttentionRequest request = {.masks = {MaskFamily::kFull},
                                    .dtype = DType::kFloat16,
                                    .device = DeviceKind::kCuda,
                                    .device_arch = 90,
                                    .training = false,
                                    .deterministic = true};
  EXPECT_EQ(refusals("sdpa", request), Codes{});
  EXPECT_EQ(refusals("flash", request), Codes{});
}

}  // namespace
}  // namespace attnmux
