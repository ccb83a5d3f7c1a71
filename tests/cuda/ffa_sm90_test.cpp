// The Hopper backend against the reference backend in float64, forward and backward, on fresh random inputs.
#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <thread>
#include <tuple>

#include "attnmux/attend.h"
#include "attnmux/error.h"
#include "attnmux/launch_mark.h"
#include "captured_graph_sm90.h"
#include "ffa_sm90/ffa_backend.h"
#include "gpu.h"
#include "mask_cases.h"
#include "reference/reference_backend.h"

namespace attnmux::ffa_sm90 {
namespace {

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

class FfaTest : public ::testing::TestWithParam<std::tuple<testing::MaskCase, int64_t>> {};

TEST_P(FfaTest, agrees_with_float64) {
  SKIP_WITHOUT_HOPPER();
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
    testing::poison({q});
    const ForwardResult got = ours->forward(*prepared, {q, k, v, scale});
    const ForwardResult want = reference->forward(*expected_prepared, {wide(q), wide(k), wide(v), scale});
    EXPECT_LE(relative_error(got.out, want.out), precision.error);
    const at::Tensor lse = got.lse.cpu().to(at::kDouble);
    const at::Tensor empty = want.lse.isinf();
    EXPECT_TRUE(at::equal(lse.isinf(), empty)) << "rows without keys";
    EXPECT_LE((lse.masked_fill(empty, 0) - want.lse.masked_fill(empty, 0)).abs().max().item<double>(), 2e-4);

    const BackwardResult expected = reference->backward(*expected_prepared, {.dout = wide(dout),
                                                                             .q = wide(q),
                                                                             .k = wide(k),
                                                                             .v = wide(v),
                                                                             .out = want.out,
                                                                             .lse = want.lse,
                                                                             .softmax_scale = scale});
    for (const bool deterministic : {false, true}) {
      SCOPED_TRACE(deterministic ? "deterministic" : "in any order");
      testing::poison({q, k});
      const BackwardResult grads = ours->backward(*prepared, {.dout = dout,
                                                              .q = q,
                                                              .k = k,
                                                              .v = v,
                                                              .out = got.out,
                                                              .lse = got.lse,
                                                              .softmax_scale = scale,
                                                              .deterministic = deterministic});
      EXPECT_LE(relative_error(grads.dq, expected.dq), precision.error) << "dq";
      EXPECT_LE(relative_error(grads.dk, expected.dk), precision.error) << "dk";
      EXPECT_LE(relative_error(grads.dv, expected.dv), precision.error) << "dv";
    }
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
  EXPECT_EQ(codes, (std::vector<ReasonCode>{ReasonCode::kDType, ReasonCode::kHeadDim, ReasonCode::kDeviceArch}));
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
                                    .training = true,
                                    .deterministic = true};
  EXPECT_TRUE(make_backend()->query(request).ok());
}

TEST(FfaSupportTest, names_lengths_that_it_cannot_count) {
  AttentionRequest request = {.dtype = DType::kBFloat16,
                              .heads_q = 128,
                              .heads_kv = 128,
                              .head_dim = 128,
                              .max_tokens = int64_t{1} << 31,
                              .device = DeviceKind::kCuda,
                              .device_arch = 90};
  const auto backend = make_backend();
  const auto only_reason = [&] {
    const Support support = backend->query(request);
    return support.reasons.size() == 1 ? support.reasons[0].to_string() : "";
  };
  EXPECT_THAT(only_reason(), ::testing::HasSubstr("2147483648 tokens"));
  request.max_tokens = int64_t{1} << 30;
  EXPECT_THAT(only_reason(), ::testing::HasSubstr("128 heads"));
  request.max_tokens = int64_t{1} << 28;
  EXPECT_EQ(only_reason(), "");
  const AttentionShape shape = {.heads_q = 1,
                                .heads_kv = 1,
                                .head_dim = 64,
                                .head_dim_v = 64,
                                .dtype = DType::kBFloat16,
                                .device = DeviceKind::kCuda};
  EXPECT_THROW(backend->prepare(full_mask(int64_t{1} << 32, 1), shape), Error);
}

// One call on random tensors, ready to be repeated.
struct Call {
  std::shared_ptr<const AttentionBackend> backend = make_backend();
  std::shared_ptr<const Prepared> prepared;
  at::Tensor q, k, v, dout;
  double scale;

  Call(const AttnMaskSpec& mask, int64_t heads_q, int64_t heads_kv, int64_t head_dim)
      : scale(1 / std::sqrt(static_cast<double>(head_dim))) {
    const auto options = at::device(at::kCUDA).dtype(at::kBFloat16);
    q = at::randn({mask.total_q(), heads_q, head_dim}, options);
    k = at::randn({mask.total_k(), heads_kv, head_dim}, options);
    v = at::randn_like(k);
    dout = at::randn_like(q);
    prepared = backend->prepare(mask, {.heads_q = heads_q,
                                       .heads_kv = heads_kv,
                                       .head_dim = head_dim,
                                       .head_dim_v = head_dim,
                                       .dtype = DType::kBFloat16,
                                       .device = DeviceKind::kCuda});
  }
  ForwardResult forward() const { return backend->forward(*prepared, {q, k, v, scale}); }
  BackwardResult backward(const ForwardResult& result, bool deterministic) const {
    return backend->backward(*prepared, {.dout = dout,
                                         .q = q,
                                         .k = k,
                                         .v = v,
                                         .out = result.out,
                                         .lse = result.lse,
                                         .softmax_scale = scale,
                                         .deterministic = deterministic});
  }
};

void expect_same_bits(const BackwardResult& actual, const BackwardResult& expected) {
  EXPECT_TRUE(at::equal(actual.dq, expected.dq)) << "dq";
  EXPECT_TRUE(at::equal(actual.dk, expected.dk)) << "dk";
  EXPECT_TRUE(at::equal(actual.dv, expected.dv)) << "dv";
}

TEST(FfaDeterminismTest, the_same_bits_in_twenty_runs) {
  SKIP_WITHOUT_HOPPER();
  const AttnMaskSpec masks[] = {causal_mask(4001, 4001), full_mask(2000, 3000),
                                sliding_window_mask({3000, 1500}, {.left = 700, .right = 100}),
                                prefix_tree({900, 800, 700, 600}, {{0, 1}, {0, 2}, {0, 3}}).mask};
  for (const AttnMaskSpec& mask : masks) {
    for (const int64_t head_dim : {64, 128}) {
      const Call call(mask, 8, 2, head_dim);
      const ForwardResult result = call.forward();
      const BackwardResult grads = call.backward(result, /*deterministic=*/true);
      for (int run = 1; run < 20; ++run) {
        const ForwardResult again = call.forward();
        EXPECT_TRUE(at::equal(again.out, result.out) && at::equal(again.lse, result.lse));
        expect_same_bits(call.backward(again, /*deterministic=*/true), grads);
      }
      const BackwardResult any_order = call.backward(result, /*deterministic=*/false);
      EXPECT_LE(relative_error(any_order.dq, grads.dq.cpu().to(at::kDouble)), kBf16.error);
    }
  }
}

// Two deterministic backward calls side by side share the GPU's multiprocessors: neither may wait for blocks of its own
// that the other keeps from running.
TEST(FfaDeterminismTest, two_streams_do_not_wait_for_each_other) {
  SKIP_WITHOUT_HOPPER();
  const Call call(causal_mask(6000, 6000), 4, 4, 128);
  const ForwardResult result = call.forward();
  const BackwardResult want = call.backward(result, /*deterministic=*/true);
  synchronize(call.q.device());
  const c10::impl::VirtualGuardImpl guard(at::kCUDA);
  std::vector<BackwardResult> got;
  for (int i = 0; i < 8; ++i) {
    const c10::StreamGuard stream(guard.getStreamFromGlobalPool(call.q.device(), /*isHighPriority=*/i % 2 == 1));
    got.push_back(call.backward(result, /*deterministic=*/true));
  }
  synchronize(call.q.device());
  for (const BackwardResult& grads : got) expect_same_bits(grads, want);
}

// Keys in two halves, each backward from the merged output and lse, as under context parallelism. Rows have few keys in
// a half, and more than those in the softmax.
TEST(FfaCallTest, backward_of_a_part_of_the_softmax) {
  SKIP_WITHOUT_HOPPER();
  constexpr int64_t kHalf = 128;
  for (const int64_t head_dim : {64, 128}) {
    const AttnMaskSpec whole_mask({{.q = {0, 200}, .k = {kHalf - 2, kHalf + 3}}}, 200, 2 * kHalf);
    const Call whole(whole_mask, 4, 2, head_dim);
    const ForwardResult result = whole.forward();
    const BackwardResult want = whole.backward(result, /*deterministic=*/false);
    at::Tensor dq = at::zeros_like(want.dq, at::kFloat);
    for (int half = 0; half < 2; ++half) {
      const AttnMaskSpec mask({{.q = {0, 200}, .k = half == 0 ? Range{kHalf - 2, kHalf} : Range{0, 3}}}, 200, kHalf);
      Call part(mask, 4, 2, head_dim);
      part.q = whole.q;
      part.k = whole.k.narrow(0, half * kHalf, kHalf);
      part.v = whole.v.narrow(0, half * kHalf, kHalf);
      part.dout = whole.dout;
      const BackwardResult grads = part.backward(result, /*deterministic=*/false);
      dq += grads.dq;
      const auto rows = [&](const at::Tensor& t) { return t.narrow(0, half * kHalf, kHalf).cpu().to(at::kDouble); };
      EXPECT_LE(relative_error(grads.dk, rows(want.dk)), 1e-6);
      EXPECT_LE(relative_error(grads.dv, rows(want.dv)), 1e-6);
    }
    EXPECT_LE(relative_error(dq, want.dq.cpu().to(at::kDouble)), kBf16.error);
  }
}

// A graph of one forward and one backward gives, on new inputs, what calls give.
TEST(FfaCallTest, is_the_first_of_its_thread_to_use_the_gpu) {
  SKIP_WITHOUT_HOPPER();
  const auto backend = make_backend();
  const AttentionShape shape = {.head_dim_v = 64, .dtype = DType::kBFloat16, .device = DeviceKind::kCuda};
  const auto prepared = backend->prepare(causal_mask(65, 65), shape);
  const at::Tensor q = at::randn({65, 1, 64}, at::device(at::kCUDA).dtype(at::kBFloat16));
  const auto gradient = [&](const ForwardResult& result) {
    return backend
        ->backward(*prepared,
                   {.dout = q, .q = q, .k = q, .v = q, .out = result.out, .lse = result.lse, .softmax_scale = 0.1})
        .dq;
  };
  const ForwardResult result = backend->forward(*prepared, {q, q, q, 0.1});
  const at::Tensor expected =
      gradient(result).clone();  // what it allocated is free again: the threads allocate nothing
  at::Tensor dq, out;
  std::thread([&] { dq = gradient(result); }).join();
  std::thread([&] { out = backend->forward(*prepared, {q, q, q, 0.1}).out; }).join();
  EXPECT_TRUE(at::allclose(dq, expected, 1e-2, 1e-2));
  EXPECT_TRUE(at::equal(out, result.out));
}

TEST(FfaCallTest, captured_in_a_graph) {
  SKIP_WITHOUT_HOPPER();
  for (const int64_t head_dim : {64, 128}) {
    const Call call(causal_mask(1000, 1300), 4, 2, head_dim);
    const c10::impl::VirtualGuardImpl guard(at::kCUDA);
    const c10::StreamGuard stream(guard.getStreamFromGlobalPool(call.q.device()));
    call.backward(call.forward(), /*deterministic=*/true);  // the allocator has what the capture will ask for
    synchronize(call.q.device());
    ForwardResult result;
    BackwardResult grads;
    const testing::CapturedGraph graph(stream.current_stream(), [&] {
      result = call.forward();
      grads = call.backward(result, /*deterministic=*/true);
    });
    for (int replay = 0; replay < 3; ++replay) {
      for (const at::Tensor& input : {call.q, call.k, call.v, call.dout}) input.normal_();
      for (const at::Tensor& output : {result.out, grads.dq, grads.dk, grads.dv}) output.fill_(std::nan(""));
      graph.launch();
      const ForwardResult want = call.forward();
      EXPECT_TRUE(at::equal(result.out, want.out) && at::equal(result.lse, want.lse));
      expect_same_bits(grads, call.backward(want, /*deterministic=*/true));
    }
    synchronize(call.q.device());
  }
}

TEST(FfaCallTest, out_of_memory_is_told) {
  SKIP_WITHOUT_HOPPER();
  // One token in the place of all: the copy that the kernel would need does not fit.
  constexpr int64_t kTokens = int64_t{1} << 24;
  const auto options = at::device(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor q = at::randn({1, 128, 128}, options).expand({kTokens, 128, 128});
  const at::Tensor k = at::randn({128, 1, 128}, options);
  PreparedCache cache(1);
  try {
    attend(make_backend(), full_mask(kTokens, 128), q, k, k, {}, cache);
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kOutOfMemory) << error.what();
  }
}

TEST(FfaCallTest, refuses_another_shape_than_prepared) {
  SKIP_WITHOUT_HOPPER();
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

TEST(FfaCallTest, refuses_a_scale_beyond_fp32) {
  SKIP_WITHOUT_HOPPER();
  Call call(full_mask(128, 128), 1, 1, 64);
  for (const double scale : {1e39, std::numeric_limits<double>::infinity(), std::nan("")}) {
    call.scale = scale;
    EXPECT_THROW(call.forward(), Error) << scale;
  }
}

TEST(FfaCallTest, refuses_a_gpu_that_is_not_there) {
  SKIP_WITHOUT_HOPPER();
  const AttentionShape shape = {.heads_q = 1,
                                .heads_kv = 1,
                                .head_dim = 64,
                                .head_dim_v = 64,
                                .dtype = DType::kBFloat16,
                                .device = DeviceKind::kCuda,
                                .device_index = 99};
  EXPECT_THROW(make_backend()->prepare(full_mask(128, 128), shape), Error);
}

// Three modules one behind another, the second on memory that is not there: the host is told at the third, or at the
// synchronisation. Ends the process, whose context is lost.
[[noreturn]] void fault_in_the_second_module(bool backward) {
  const AttnMaskSpec mask = causal_mask(512, 512);
  const auto options = at::device(at::kCUDA).dtype(at::kBFloat16);
  const at::Tensor good = at::randn({512, 2, 64}, options);
  void* const nowhere = reinterpret_cast<void*>(uintptr_t{1} << 44);
  const at::Tensor bad =
      at::for_blob(nowhere, {512, 2, 64}).options(options).target_device(at::Device(at::kCUDA, 0)).make_tensor();
  const auto ours = make_backend();
  PreparedCache cache;
  try {
    for (const char* module : {"layers.0", "layers.1", "layers.2"}) {
      const bool spoil = module == std::string("layers.1");
      const at::Tensor q = (spoil && !backward ? bad : good.clone()).requires_grad_(backward);
      const AttendResult result = attend(ours, mask, q, good, good, {.module = module}, cache);
      if (backward) result.out.backward(spoil ? bad : good);
    }
    c10::impl::VirtualGuardImpl(at::kCUDA).synchronizeDevice(0);
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    std::_Exit(error.code() == ErrorCode::kDeviceError ? 7 : 8);
  } catch (const c10::AcceleratorError& error) {
    std::cerr << error.what_without_backtrace() << fault_origin() << "\n";
    std::_Exit(7);
  }
  std::_Exit(9);
}

TEST(FfaFaultTest, names_the_module_whose_kernels_failed) {
  SKIP_WITHOUT_HOPPER();
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(fault_in_the_second_module(/*backward=*/false), ::testing::ExitedWithCode(7),
              "had begun is layers.1, forward");
  EXPECT_EXIT(fault_in_the_second_module(/*backward=*/true), ::testing::ExitedWithCode(7),
              "had begun is layers.1, backward");
}

}  // namespace
}  // namespace attnmux::ffa_sm90
