#include "attnmux/attend.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "attnmux/envelope.h"
#include "attnmux/error.h"
#include "attnmux/launch_mark.h"
#include "attnmux/mask_builders.h"
#include "fake_backend.h"

namespace attnmux {
namespace {

using ::testing::AllOf;
using testing::FakeBackend;
using ::testing::HasSubstr;

struct Tensors {
  at::Tensor q, k, v;
};

Tensors random_tensors(int64_t tokens_q, int64_t tokens_k, at::ScalarType dtype = at::kFloat) {
  return {at::randn({tokens_q, 4, 8}, dtype), at::randn({tokens_k, 2, 8}, dtype), at::randn({tokens_k, 2, 6}, dtype)};
}

// Dense attention by ATen, differentiable: out [tokens_q, heads, head_dim_v].
at::Tensor dense_attention(const AttnMaskSpec& mask, const Tensors& t, double scale) {
  at::Tensor allowed = at::zeros({mask.total_q(), mask.total_k()}, at::kBool);
  for (int64_t i = 0; i < mask.total_q(); ++i) {
    for (int64_t j = 0; j < mask.total_k(); ++j) allowed[i][j] = mask.allowed(i, j);
  }
  const int64_t group = t.q.size(1) / t.k.size(1);
  const at::Tensor q = t.q.to(at::kDouble).transpose(0, 1);
  const at::Tensor k = t.k.to(at::kDouble).transpose(0, 1).repeat_interleave(group, 0);
  const at::Tensor v = t.v.to(at::kDouble).transpose(0, 1).repeat_interleave(group, 0);
  const at::Tensor p = (at::matmul(q, k.transpose(1, 2)) * scale).masked_fill(~allowed, -1e300).softmax(-1);
  return at::matmul(p, v).transpose(0, 1);
}

void expect_close(const at::Tensor& got, const at::Tensor& want, const char* what) {
  ASSERT_EQ(got.sizes(), want.sizes()) << what;
  const at::Tensor difference = (got.to(at::kDouble) - want.to(at::kDouble)).abs().flatten();
  const int64_t worst = difference.argmax().item<int64_t>();
  EXPECT_LE(difference[worst].item<double>(), 1e-4)
      << what << ": worst at " << worst << ", got " << got.flatten()[worst].item<double>() << ", want "
      << want.flatten()[worst].item<double>() << ", " << (difference > 1e-4).sum().item<int64_t>() << " of "
      << difference.numel() << " differ";
}

class Attend : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(7); }

  AttendResult run(const AttnMaskSpec& mask, const Tensors& t, const AttendOptions& options = {}) {
    return attend(fake, mask, t.q, t.k, t.v, options, cache);
  }

  template <class Call>
  std::string error_of(ErrorCode expected, const Call& call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(to_string(error.code()), to_string(expected)) << error.what();
      return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
  }

  std::shared_ptr<FakeBackend> fake = std::make_shared<FakeBackend>("fake");
  PreparedCache cache;
};

TEST_F(Attend, GradientsEqualThoseOfDenseAttention) {
  const AttnMaskSpec mask = varlen_mask({3, 5}, MaskType::kCausal);
  for (const double scale : {1 / std::sqrt(8.0), 0.3}) {
    Tensors t = random_tensors(8, 8);
    for (at::Tensor* x : {&t.q, &t.k, &t.v}) x->requires_grad_();
    AttendOptions options;
    if (scale == 0.3) options.softmax_scale = scale;
    const AttendResult result = run(mask, t, options);
    EXPECT_FALSE(result.lse.requires_grad());
    const at::Tensor dout = at::randn_like(result.out);
    result.out.backward(dout);
    std::vector<at::Tensor> got;
    for (at::Tensor* x : {&t.q, &t.k, &t.v}) {
      got.push_back(x->grad().clone());
      x->mutable_grad().reset();
    }
    const at::Tensor want = dense_attention(mask, t, scale);
    expect_close(result.out.detach(), want.detach(), "out");
    want.backward(dout.to(at::kDouble));
    expect_close(got[0], t.q.grad(), "dq");
    expect_close(got[1], t.k.grad(), "dk");
    expect_close(got[2], t.v.grad(), "dv");
  }
}

TEST_F(Attend, BshdIsAViewOfThd) {
  const AttnMaskSpec mask = causal_mask(8, 8);
  Tensors t = random_tensors(8, 8);
  const AttendResult thd = run(mask, t);
  Tensors batched{t.q.unsqueeze(0), t.k.unsqueeze(0), t.v.unsqueeze(0)};
  for (at::Tensor* x : {&batched.q, &batched.k, &batched.v}) *x = x->detach().requires_grad_();
  const AttendResult bshd = run(mask, batched, {.layout = Layout::kBSHD});
  EXPECT_EQ(bshd.out.sizes(), at::IntArrayRef({1, 8, 4, 6}));
  EXPECT_TRUE(at::equal(bshd.out[0], thd.out));
  EXPECT_TRUE(at::equal(bshd.lse, thd.lse));
  EXPECT_EQ(fake->last_q.data_ptr(), batched.q.data_ptr()) << "the input was copied";
  bshd.out.sum().backward();
  EXPECT_EQ(batched.q.grad().sizes(), batched.q.sizes());
}

TEST_F(Attend, TransposedInputsReachTheBackendUncopied) {
  const AttnMaskSpec mask = causal_mask(8, 8);
  const Tensors t{at::randn({1, 4, 8, 8}).transpose(1, 2), at::randn({1, 2, 8, 8}).transpose(1, 2),
                  at::randn({1, 2, 8, 6}).transpose(1, 2)};
  run(mask, t, {.layout = Layout::kBSHD});
  EXPECT_EQ(fake->last_q.data_ptr(), t.q.data_ptr());
  EXPECT_EQ(fake->last_q.strides(), t.q[0].strides());
}

TEST_F(Attend, InputsThatNeedNoGradientGetNone) {
  const AttnMaskSpec mask = causal_mask(8, 8);
  Tensors t = random_tensors(8, 8);
  t.v.requires_grad_();
  run(mask, t).out.sum().backward();
  EXPECT_FALSE(t.q.grad().defined());
  EXPECT_TRUE(t.v.grad().defined());

  fake->backwards = 0;
  const c10::NoGradGuard no_grad;
  EXPECT_FALSE(run(mask, t).out.requires_grad());
}

TEST_F(Attend, NonContiguousGradientsArriveAsTheyAre) {
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  const AttendResult result = run(causal_mask(8, 8), t);
  const at::Tensor dout = at::randn({6, 4, 8}).permute({2, 1, 0});
  result.out.backward(dout);
  EXPECT_EQ(fake->last_dout.strides(), dout.strides());
  EXPECT_TRUE(t.q.grad().defined());
}

TEST_F(Attend, OnBackwardAndDeterministicAreHandedOn) {
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  int calls = 0;
  const AttendResult result = run(causal_mask(8, 8), t, {.deterministic = true, .on_backward = [&calls] { ++calls; }});
  EXPECT_EQ(calls, 0);
  result.out.sum().backward();
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(fake->last_deterministic);
}

TEST_F(Attend, DoubleBackwardIsRefused) {
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  const AttendResult result = run(causal_mask(8, 8), t, {.module = "layers.3"});
  const std::string text = error_of(ErrorCode::kInvalidArgument, [&] {
    result.out.sum().backward({}, /*retain_graph=*/true, /*create_graph=*/true);
  });
  EXPECT_THAT(text, AllOf(HasSubstr("layers.3"), HasSubstr("create_graph = false")));
}

TEST_F(Attend, BackwardTwiceThroughOneGraphIsRefused) {
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  const AttendResult result = run(causal_mask(8, 8), t);
  result.out.backward(at::ones_like(result.out));
  const std::string text =
      error_of(ErrorCode::kInvalidArgument, [&] { result.out.backward(at::ones_like(result.out)); });
  EXPECT_THAT(text, HasSubstr("retain_graph"));
}

TEST_F(Attend, AnInputChangedBeforeBackwardIsFound) {
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  const AttendResult result = run(causal_mask(8, 8), t);
  t.k.add_(1);
  EXPECT_THROW(result.out.sum().backward(), c10::Error);
}

struct BadInput {
  const char* name;
  std::function<void(Tensors&, AttendOptions&)> spoil;
  const char* expected;
};

class BadInputTest : public Attend, public ::testing::WithParamInterface<BadInput> {};

TEST_P(BadInputTest, IsRefusedBeforeTheBackendRuns) {
  Tensors t = random_tensors(8, 8);
  AttendOptions options{.module = "layers.0.self_attn"};
  GetParam().spoil(t, options);
  const std::string text = error_of(ErrorCode::kInvalidArgument, [&] { run(causal_mask(8, 8), t, options); });
  EXPECT_THAT(text, AllOf(HasSubstr(GetParam().expected), HasSubstr("layers.0.self_attn")));
  EXPECT_EQ(fake->prepares + fake->forwards, 0);
}

const BadInput kBadInputs[] = {
    {"undefined", [](Tensors& t, AttendOptions&) { t.k = at::Tensor(); }, "k is undefined"},
    {"two_dims", [](Tensors& t, AttendOptions&) { t.q = t.q.flatten(1); }, "q has shape [8, 32], expected [tokens"},
    {"thd_as_bshd", [](Tensors&, AttendOptions& o) { o.layout = Layout::kBSHD; }, "[1, tokens, heads, head_dim]"},
    {"batch_of_two",
     [](Tensors& t, AttendOptions& o) {
       o.layout = Layout::kBSHD;
       for (at::Tensor* x : {&t.q, &t.k, &t.v}) *x = at::stack({*x, *x});
     },
     "batch 1, got 2"},
    {"tokens_q", [](Tensors& t, AttendOptions&) { t.q = t.q.slice(0, 0, 7); }, "q tokens = 7, expected 8"},
    {"tokens_k",
     [](Tensors& t, AttendOptions&) {
       t.k = at::cat({t.k, t.k});
       t.v = at::cat({t.v, t.v});
     },
     "k tokens = 16, expected 8 (the mask's total_k)"},
    {"tokens_v", [](Tensors& t, AttendOptions&) { t.v = t.v.slice(0, 0, 5); }, "v tokens = 5, expected 8 (as k)"},
    {"head_dim", [](Tensors& t, AttendOptions&) { t.k = t.k.slice(2, 0, 4); }, "k head_dim = 4, expected 8"},
    {"heads_v", [](Tensors& t, AttendOptions&) { t.v = t.v.slice(1, 0, 1); }, "v heads = 1, expected 2"},
    {"heads_not_a_multiple", [](Tensors& t, AttendOptions&) { t.q = t.q.slice(1, 0, 3); }, "q has 3 heads"},
    {"no_heads", [](Tensors& t, AttendOptions&) { t.k = t.k.slice(1, 0, 0); }, "at least 1"},
    {"dtype", [](Tensors& t, AttendOptions&) { t.v = t.v.to(at::kDouble); }, "v has dtype Double, q has Float"},
    {"integers",
     [](Tensors& t, AttendOptions&) {
       for (at::Tensor* x : {&t.q, &t.k, &t.v}) *x = x->to(at::kLong);
     },
     "q has dtype Long"},
    {"device", [](Tensors& t, AttendOptions&) { t.k = t.k.to(at::kMeta); }, "k is on meta, q is on cpu"},
    {"sparse", [](Tensors& t, AttendOptions&) { t.v = t.v.to_sparse(); }, "v must be a dense tensor"},
    {"scale", [](Tensors&, AttendOptions& o) { o.softmax_scale = std::nan(""); }, "softmax_scale is nan"},
};
INSTANTIATE_TEST_SUITE_P(Cases, BadInputTest, ::testing::ValuesIn(kBadInputs),
                         [](const auto& info) { return info.param.name; });

TEST_F(Attend, ARefusalCarriesAllReasons) {
  fake->refuse = [](const AttentionRequest& request) {
    EXPECT_TRUE(request.masks.has(MaskFamily::kVarlenCausal));
    EXPECT_EQ(request.heads_q, 4);
    EXPECT_EQ(request.heads_kv, 2);
    EXPECT_EQ(request.head_dim_v, 6);
    EXPECT_FALSE(request.training);
    return std::vector<Reason>{{ReasonCode::kHeadDim, "8", "64", "pad"}, {ReasonCode::kDType, "fp32", "bf16", ""}};
  };
  const std::string text = error_of(ErrorCode::kUnsupported, [&] {
    run(varlen_mask({3, 5}, MaskType::kCausal), random_tensors(8, 8));
  });
  EXPECT_THAT(text, AllOf(HasSubstr("head_dim: got 8, want 64; pad"), HasSubstr("dtype: got fp32, want bf16")));
  EXPECT_EQ(fake->prepares + fake->forwards, 0);
}

struct BrokenPromise {
  const char* name;
  std::function<void(ForwardResult&)> forward;
  std::function<void(BackwardResult&)> backward;
  const char* expected;
};

class BrokenPromiseTest : public Attend, public ::testing::WithParamInterface<BrokenPromise> {};

TEST_P(BrokenPromiseTest, IsNamed) {
  if (GetParam().forward) fake->spoil_forward = GetParam().forward;
  if (GetParam().backward) fake->spoil_backward = GetParam().backward;
  Tensors t = random_tensors(8, 8);
  t.q.requires_grad_();
  const std::string text = error_of(ErrorCode::kContractBroken,
                                    [&] { run(causal_mask(8, 8), t, {.module = "layers.2"}).out.sum().backward(); });
  EXPECT_THAT(text, AllOf(HasSubstr(GetParam().expected), HasSubstr("\"fake\""), HasSubstr("layers.2")));
}

const BrokenPromise kBrokenPromises[] = {
    {"out_shape",
     [](ForwardResult& r) { r.out = r.out.slice(0, 0, 7); },
     {},
     "out of shape [7, 4, 6], promised is [8, 4, 6]"},
    {"out_dtype",
     [](ForwardResult& r) { r.out = r.out.to(at::kDouble); },
     {},
     "out of dtype Double, promised is Float"},
    {"out_undefined", [](ForwardResult& r) { r.out = at::Tensor(); }, {}, "out undefined"},
    {"lse_shape", [](ForwardResult& r) { r.lse = r.lse.transpose(0, 1); }, {}, "lse of shape [4, 8]"},
    {"lse_dtype", [](ForwardResult& r) { r.lse = r.lse.to(at::kHalf); }, {}, "lse of dtype Half"},
    {"dq_shape", {}, [](BackwardResult& r) { r.dq = r.dq[0]; }, "dq of shape [4, 8]"},
    {"dk_repeated",
     {},
     [](BackwardResult& r) {
       r.dk = at::cat({r.dk, r.dk}, 1);
     },
     "dk of shape [8, 4, 8]"},
    {"dv_dtype", {}, [](BackwardResult& r) { r.dv = r.dv.to(at::kBFloat16); }, "dv of dtype BFloat16"},
    {"refuses_after_yes",
     [](ForwardResult&) { throw Error(ErrorCode::kUnsupported, "strides"); },
     {},
     "query() took this request, yet the call was refused: strides"},
};
INSTANTIATE_TEST_SUITE_P(Cases, BrokenPromiseTest, ::testing::ValuesIn(kBrokenPromises),
                         [](const auto& info) { return info.param.name; });

TEST_F(Attend, OutOfMemoryKeepsItsCode) {
  fake->spoil_forward = [](ForwardResult&) { throw std::bad_alloc(); };
  error_of(ErrorCode::kOutOfMemory, [&] { run(causal_mask(8, 8), random_tensors(8, 8)); });
}

// Found by LibTorch, or by a backend behind its own launch.
TEST_F(Attend, AFaultOfTheGpuNamesTheModule) {
  for (const bool of_libtorch : {true, false}) {
    fake->spoil_forward = [&](ForwardResult&) {
      if (of_libtorch) throw c10::AcceleratorError({"kernel", "kernel.cu", 1}, /*code=*/700, "illegal memory access");
      throw Error(ErrorCode::kDeviceError, "illegal memory access");
    };
    const std::string text = error_of(ErrorCode::kDeviceError,
                                      [&] { run(causal_mask(8, 8), random_tensors(8, 8), {.module = "layers.3"}); });
    EXPECT_THAT(text,
                AllOf(HasSubstr("layers.3"), HasSubstr("illegal memory access"), HasSubstr("CUDA_LAUNCH_BLOCKING=1")));
  }
}

// A fault that shows later: what the GPU had begun is asked of the word that kernels write, here written by hand.
TEST_F(Attend, AFaultNamesTheModuleWhoseCallTheGpuHadBegun) {
  static volatile uint32_t begun = 0;
  watch_launches(0, &begun);
  std::vector<uint32_t> callers;
  fake->spoil_forward = [&](ForwardResult&) { callers.push_back(current_caller()); };
  for (const char* module : {"layers.1", "layers.2", "layers.1"}) {
    run(causal_mask(8, 8), random_tensors(8, 8), {.module = module});
  }
  EXPECT_NE(callers[0], callers[1]);
  EXPECT_EQ(callers[0], callers[2]);
  EXPECT_EQ(current_caller(), 0u);
  begun = callers[0];
  fake->spoil_forward = [](ForwardResult&) { throw Error(ErrorCode::kDeviceError, "illegal memory access"); };
  const std::string text =
      error_of(ErrorCode::kDeviceError, [&] { run(causal_mask(8, 8), random_tensors(8, 8), {.module = "layers.3"}); });
  EXPECT_THAT(text, AllOf(HasSubstr("of layers.3"), HasSubstr("GPU 0 had begun is layers.1, forward")));
  begun = 0;
  EXPECT_THAT(fault_origin(), HasSubstr("CUDA_LAUNCH_BLOCKING=1"));
}

TEST_F(Attend, RequestSaysWhatTheMaskIs) {
  const Tensors t = random_tensors(4, 9);
  const AttentionRequest request =
      request_for(AttnMaskSpec({{.q = {0, 2}, .k = {0, 9}, .type = MaskType::kFull}}, 4, 9), t.q, t.k, t.v, {});
  EXPECT_TRUE(request.empty_rows);
  EXPECT_TRUE(request.cross_lengths);
  EXPECT_EQ(request.max_tokens, 9);
  EXPECT_FALSE(request_for(causal_mask(4, 9), t.q, t.k, t.v, {}).empty_rows);
}

TEST_F(Attend, EmptyRowsAreFoundWhereverTheyAre) {
  int masks_with = 0;
  for (int64_t seed = 0; seed < 200; ++seed) {
    at::manual_seed(seed);
    const at::Tensor dense = at::rand({5, 5}) < 0.4;
    std::vector<uint8_t> flags;
    for (int64_t i = 0; i < 25; ++i) flags.push_back(dense.flatten()[i].item<bool>());
    const AttnMaskSpec mask = mask_from_dense(flags, 5, 5);
    const bool empty = dense.any(1).logical_not().any().item<bool>();
    masks_with += empty;
    const at::Tensor x = at::zeros({5, 1, 2});
    EXPECT_EQ(request_for(mask, x, x, x, {}).empty_rows, empty) << "seed " << seed;
  }
  EXPECT_GT(masks_with, 20);
  EXPECT_LT(masks_with, 180);
}

TEST_F(Attend, PreparesAMaskOnceForEachShape) {
  const Tensors t = random_tensors(8, 8);
  run(causal_mask(8, 8), t);
  run(causal_mask(8, 8), t);
  EXPECT_EQ(fake->prepares, 1);
  run(full_mask(8, 8), t);
  EXPECT_EQ(fake->prepares, 2);
  run(causal_mask(8, 8), random_tensors(8, 8, at::kDouble));
  EXPECT_EQ(fake->prepares, 3);
  const auto other = std::make_shared<FakeBackend>("fake");
  attend(other, causal_mask(8, 8), t.q, t.k, t.v, {}, cache);
  EXPECT_EQ(other->prepares, 1) << "another instance of one id prepares for itself";
}

TEST(PreparedCache, DropsTheLeastRecentlyUsed) {
  PreparedCache cache(2);
  const auto backend = std::make_shared<FakeBackend>("fake");
  const auto get = [&](int64_t tokens) { cache.get(backend, causal_mask(tokens, tokens), {}); };
  get(1), get(2), get(1), get(3);
  EXPECT_EQ(backend->prepares, 3);
  get(1);
  EXPECT_EQ(backend->prepares, 3) << "1 was used after 2";
  get(2);
  EXPECT_EQ(backend->prepares, 4);
}

TEST(PreparedCache, PreparesOnceForThreadsThatAskTogether) {
  PreparedCache cache;
  const auto backend = std::make_shared<FakeBackend>("fake");
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<const Prepared>> got(8);
  for (size_t t = 0; t < got.size(); ++t) {
    threads.emplace_back([&, t] { got[t] = cache.get(backend, causal_mask(200, 200), {}); });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(backend->prepares, 1);
  for (const auto& prepared : got) EXPECT_EQ(prepared, got[0]);
}

class FailingOnce : public FakeBackend {
 public:
  using FakeBackend::FakeBackend;
  std::shared_ptr<const Prepared> prepare(const AttnMaskSpec& mask, const AttentionShape& shape) const override {
    if (!failed.exchange(true)) throw Error(ErrorCode::kOutOfMemory, "no room");
    return FakeBackend::prepare(mask, shape);
  }
  mutable std::atomic<bool> failed = false;
};

TEST(PreparedCache, AFailureIsNotRemembered) {
  PreparedCache cache;
  const auto backend = std::make_shared<FailingOnce>("fake");
  EXPECT_THROW(cache.get(backend, causal_mask(4, 4), {}), Error);
  EXPECT_TRUE(cache.get(backend, causal_mask(4, 4), {}));
}

struct EnvelopeCase {
  const char* name;
  std::function<void(AttentionRequest&)> change;
  const char* code;  // empty: inside
};
class EnvelopeTest : public ::testing::TestWithParam<EnvelopeCase> {};

TEST_P(EnvelopeTest, Sel7Outside) {
  const AttentionRequest planned{.masks = {MaskFamily::kVarlenCausal}, .heads_q = 4, .heads_kv = 2, .max_tokens = 100};
  AttentionRequest call = planned;
  GetParam().change(call);
  std::string codes;
  for (const Reason& reason : outside_of(planned, call)) codes += to_string(reason.code);
  EXPECT_EQ(codes, GetParam().code);
}

const EnvelopeCase kEnvelope[] = {
    {"same", [](AttentionRequest&) {}, ""},
    {"narrower_mask", [](AttentionRequest& r) { r.masks = {MaskFamily::kCausal}; }, ""},
    {"shorter", [](AttentionRequest& r) { r.max_tokens = 1; }, ""},
    {"head_dim_v_spelt_out", [](AttentionRequest& r) { r.head_dim_v = 64; }, ""},
    {"bshd_is_a_view", [](AttentionRequest& r) { r.layout = Layout::kBSHD; }, ""},
    {"wider_mask", [](AttentionRequest& r) { r.masks = {MaskFamily::kSlidingWindow}; }, "mask.type"},
    {"cross_lengths", [](AttentionRequest& r) { r.cross_lengths = true; }, "mask.cross_lengths"},
    {"empty_rows", [](AttentionRequest& r) { r.empty_rows = true; }, "mask.empty_rows"},
    {"dtype", [](AttentionRequest& r) { r.dtype = DType::kBFloat16; }, "dtype"},
    {"heads", [](AttentionRequest& r) { r.heads_q = 8; }, "heads"},
    {"heads_kv", [](AttentionRequest& r) { r.heads_kv = 4; }, "heads"},
    {"head_dim", [](AttentionRequest& r) { r.head_dim = 128, r.head_dim_v = 64; }, "head_dim"},
    {"head_dim_v", [](AttentionRequest& r) { r.head_dim_v = 32; }, "head_dim_v"},
    {"longer", [](AttentionRequest& r) { r.max_tokens = 101; }, "length"},
    {"device", [](AttentionRequest& r) { r.device = DeviceKind::kCuda; }, "device"},
    {"training", [](AttentionRequest& r) { r.training = true; }, "training"},
    {"deterministic", [](AttentionRequest& r) { r.deterministic = true; }, "deterministic"},
    {"cp_size", [](AttentionRequest& r) { r.cp_size = 2; }, "cp_size"},
    {"two_at_once", [](AttentionRequest& r) { r.dtype = DType::kFloat16, r.heads_q = 2; }, "dtypeheads"},
};
INSTANTIATE_TEST_SUITE_P(Cases, EnvelopeTest, ::testing::ValuesIn(kEnvelope),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
