// The Hopper backend against the reference backend in float64, forward and backward, on fresh random inputs.
#include <ATen/ATen.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <tuple>

#include "attnmux/error.h"
#include "ffa_sm90/ffa_backend.h"
#include "mask_cases.h"
#include "reference/reference_backend.h"

namespace attnmux::ffa_sm90 {
namespace {

// LibTorch's CUDA part is not linked; where it loads and finds a GPU, tensors may live there.
bool has_hopper() {
  static const bool found = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr && at::hasCUDA();
  return found;
}

#define SKIP_WITHOUT_GPU() \
  if (!has_hopper()) GTEST_SKIP() << "no CUDA device, or LibTorch's CUDA part does not load"

struct Precision {
  at::ScalarType dtype;
  double error;  // of a result, relative in norm: about twice what rounding P, dS and the result alone costs
};

constexpr Precision kBf16 = {at::kBFloat16, 8e-3};
constexpr Precision kFp16 = {at::kHalf, 1e-3};

// ||actual - expected|| / ||expected||; NaN anywhere is infinite.
double relative_error(const at::Tensor& actual, const at::Tensor& expected) {
  const at::Tensor difference = actual.cpu().to(at::kDouble) - expected;
  const double error = difference.norm().item<double>();
  const double size = expected.norm().item<double>();
  if (error != error) return std::numeric_limits<double>::infinity();
  return size == 0 ? error : error / size;
}

// Leaves NaN in freed blocks of the allocator, so that an element that nothing writes is noticed.
void poison(const at::Tensor& like) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<at::Tensor> blocks;
  for (int i = 0; i < 6; ++i) blocks.push_back(at::full(like.sizes(), nan, like.options()));
}

class FfaTest : public ::testing::TestWithParam<std::tuple<testing::MaskCase, int64_t>> {};

TEST_P(FfaTest, agrees_with_float64) {
  SKIP_WITHOUT_GPU();
  const auto& [mask_case, head_dim] = GetParam();
  const AttnMaskSpec& mask = mask_case.mask;
  const auto ours = make_backend();
  const auto reference = make_reference_backend();
  for (const Precision& precision : {kBf16, kFp16}) {
    SCOPED_TRACE(at::toString(precision.dtype));
    const AttentionShape shape = {.heads_q = 4,
                                  .heads_kv = 2,
                                  .head_dim = head_dim,
                                  .head_dim_v = head_dim,
                                  .dtype = precision.dtype == at::kHalf ? DType::kFloat16 : DType::kBFloat16,
                                  .device = DeviceKind::kCuda};
    AttentionShape host = shape;
    host.dtype = DType::kFloat64;
    host.device = DeviceKind::kCpu;
    const auto options = at::device(at::kCUDA).dtype(precision.dtype);
    const at::Tensor q = at::randn({mask.total_q(), 4, head_dim}, options);
    // Heads of one buffer: strides that are not those of a contiguous tensor.
    const at::Tensor kv = at::randn({mask.total_k(), 4, head_dim}, options);
    const at::Tensor k = kv.narrow(1, 0, 2), v = kv.narrow(1, 2, 2);
    const at::Tensor dout = at::randn_like(q);
    const auto wide = [](const at::Tensor& t) { return t.cpu().to(at::kDouble); };
    const double scale = 0.11;

    const auto prepared = ours->prepare(mask, shape);
    const auto expected_prepared = reference->prepare(mask, host);
    poison(q);
    const ForwardResult got = ours->forward(*prepared, {q, k, v, scale});
    const ForwardResult want = reference->forward(*expected_prepared, {wide(q), wide(k), wide(v), scale});
    EXPECT_LE(relative_error(got.out, want.out), precision.error);
    const at::Tensor lse = got.lse.cpu().to(at::kDouble);
    const at::Tensor empty = want.lse.isinf();
    EXPECT_TRUE(at::equal(lse.isinf(), empty)) << "rows without keys";
    EXPECT_LE((lse.masked_fill(empty, 0) - want.lse.masked_fill(empty, 0)).abs().max().item<double>(), 2e-4);

    poison(q);
    poison(k);
    const BackwardResult grads = ours->backward(
        *prepared, {.dout = dout, .q = q, .k = k, .v = v, .out = got.out, .lse = got.lse, .softmax_scale = scale});
    const BackwardResult expected = reference->backward(*expected_prepared, {.dout = wide(dout),
                                                                             .q = wide(q),
                                                                             .k = wide(k),
                                                                             .v = wide(v),
                                                                             .out = want.out,
                                                                             .lse = want.lse,
                                                                             .softmax_scale = scale});
    EXPECT_LE(relative_error(grads.dq, expected.dq), precision.error) << "dq";
    EXPECT_LE(relative_error(grads.dk, expected.dk), precision.error) << "dk";
    EXPECT_LE(relative_error(grads.dv, expected.dv), precision.error) << "dv";
  }
}

INSTANTIATE_TEST_SUITE_P(Masks, FfaTest,
                         ::testing::Combine(::testing::ValuesIn(testing::mask_cases()), ::testing::Values(64, 128)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + "_" + std::to_string(std::get<1>(info.param));
                         });

TEST(FfaSupportTest, names_each_reason) {
  const AttentionRequest request = {.dtype = DType::kFloat32,
                                    .heads_q = 4,
                                    .heads_kv = 4,
                                    .head_dim = 96,
                                    .device = DeviceKind::kCuda,
                                    .device_arch = 80,
                                    .training = true,
                                    .deterministic = true};
  std::vector<ReasonCode> codes;
  for (const Reason& reason : make_backend()->query(request).reasons) codes.push_back(reason.code);
  EXPECT_EQ(codes, (std::vector<ReasonCode>{ReasonCode::kDType, ReasonCode::kHeadDim, ReasonCode::kDeviceArch,
                                            ReasonCode::kDeterministic}));
}

TEST(FfaSupportTest, takes_every_mask_on_hopper) {
  const AttentionRequest request = {.cross_lengths = true,
                                    .empty_rows = true,
                                    .dtype = DType::kBFloat16,
                                    .heads_q = 32,
                                    .heads_kv = 8,
                                    .head_dim = 128,
                                    .device = DeviceKind::kCuda,
                                    .device_arch = 90,
                                    .training = true};
  EXPECT_TRUE(make_backend()->query(request).ok());
}

TEST(FfaCallTest, refuses_another_shape_than_prepared) {
  SKIP_WITHOUT_GPU();
  const auto backend = make_backend();
  const AttentionShape shape = {.heads_q = 2,
                                .heads_kv = 2,
                                .head_dim = 64,
                                .head_dim_v = 64,
                                .dtype = DType::kBFloat16,
                                .device = DeviceKind::kCuda};
  const auto prepared = backend->prepare(full_mask(256, 256), shape);
  const at::Tensor x = at::randn({128, 2, 64}, at::device(at::kCUDA).dtype(at::kBFloat16));
  EXPECT_THROW(backend->forward(*prepared, {x, x, x, 1.0}), Error);
}

}  // namespace
}  // namespace attnmux::ffa_sm90
