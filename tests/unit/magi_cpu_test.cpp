// The magi backend's CPU kernels, for every instruction set at hand, against dense attention in float64.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "attnmux/mask.h"
#include "tests/common/compare.h"
#include "tiled_cpu/magi_backend.h"

namespace attnmux {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Inputs {
  at::Tensor q, k, v, dout;
};

struct Results {
  at::Tensor out, lse, dq, dk, dv;
  // Of an oracle: the largest sum of absolute terms in dq and dk, for where they cancel to nothing.
  double dq_terms = 0, dk_terms = 0;
};

struct Heads {
  int64_t q = 2;
  int64_t kv = 2;
};

struct MaskCase {
  std::string name;
  std::vector<AttnSlice> slices = {};
  int64_t total_q = 0;
  int64_t total_k = 0;
  AttnMaskSpec spec() const { return AttnMaskSpec(slices, total_q, total_k); }
};

std::ostream& operator<<(std::ostream& out, const MaskCase& c) { return out << c.name; }

// [total_q, total_k] bool, from the definition of a slice, independent of the library's own rows.
at::Tensor dense(const MaskCase& c) {
  at::Tensor mask = at::zeros({c.total_q, c.total_k}, at::kBool);
  auto cell = mask.accessor<bool, 2>();
  for (const AttnSlice& s : c.slices) {
    const int type = static_cast<int>(s.type);
    for (int64_t q = s.q.begin; q < s.q.end; ++q) {
      for (int64_t k = s.k.begin; k < s.k.end; ++k) {
        const bool left = !(type & 2) || k - s.k.begin >= q - s.q.begin;
        const bool right = !(type & 1) || s.k.end - 1 - k >= s.q.end - 1 - q;
        cell[q][k] = cell[q][k] || (left && right);
      }
    }
  }
  return mask;
}

// Dense attention and its gradients, every operation in `dtype`: float64 is the oracle, bf16 a plain implementation.
Results dense_attention(const at::Tensor& mask, const Inputs& in, double scale, at::ScalarType dtype) {
  const int64_t group = in.q.size(1) / in.k.size(1);
  const auto heads_first = [&](const at::Tensor& t) { return t.to(dtype).transpose(0, 1); };
  const at::Tensor q = heads_first(in.q), dout = heads_first(in.dout);
  const at::Tensor k = heads_first(in.k).repeat_interleave(group, 0), v = heads_first(in.v).repeat_interleave(group, 0);
  const at::Tensor s = (at::matmul(q, k.transpose(1, 2)) * scale).masked_fill(mask.logical_not(), -kInfinity);
  const at::Tensor lse = at::logsumexp(s, 2);
  const at::Tensor p = at::exp(s - lse.masked_fill(lse == -kInfinity, 0).unsqueeze(2));
  const at::Tensor out = at::matmul(p, v);
  const at::Tensor dp = at::matmul(dout, v.transpose(1, 2));
  const at::Tensor ds = p * (dp - (dout * out).sum(2, true)) * scale;
  const at::Tensor ds_terms = p * (dp.abs() + (dout * out).sum(2, true).abs()) * scale;
  const auto tokens_first = [&](const at::Tensor& t) { return t.transpose(0, 1).to(at::kDouble); };
  const auto grouped = [&](const at::Tensor& t) {
    return tokens_first(t.reshape({in.k.size(1), group, t.size(1), t.size(2)}).sum(1));
  };
  const auto largest = [](const at::Tensor& t) { return t.numel() == 0 ? 0.0 : t.max().item<double>(); };
  return {.out = tokens_first(out),
          .lse = tokens_first(lse),
          .dq = tokens_first(at::matmul(ds, k)),
          .dk = grouped(at::matmul(ds.transpose(1, 2), q)),
          .dv = grouped(at::matmul(p.transpose(1, 2), dout)),
          .dq_terms = largest(at::matmul(ds_terms, k.abs())),
          .dk_terms = largest(at::matmul(ds_terms.transpose(1, 2), q.abs()))};
}

DType dtype_of(const at::Tensor& t) {
  switch (t.scalar_type()) {
    case at::kBFloat16: return DType::kBFloat16;
    case at::kHalf: return DType::kFloat16;
    case at::kDouble: return DType::kFloat64;
    default: return DType::kFloat32;
  }
}

std::shared_ptr<const Prepared> prepare(const AttentionBackend& backend, const AttnMaskSpec& mask, const Inputs& in) {
  return backend.prepare(mask, {.heads_q = in.q.size(1),
                                .heads_kv = in.k.size(1),
                                .head_dim = in.q.size(2),
                                .head_dim_v = in.v.size(2),
                                .dtype = dtype_of(in.q)});
}

Results run(const AttentionBackend& backend, const AttnMaskSpec& mask, const Inputs& in, double scale) {
  const auto prepared = prepare(backend, mask, in);
  const ForwardResult f = backend.forward(*prepared, {.q = in.q, .k = in.k, .v = in.v, .softmax_scale = scale});
  const BackwardResult b = backend.backward(
      *prepared,
      {.dout = in.dout, .q = in.q, .k = in.k, .v = in.v, .out = f.out, .lse = f.lse, .softmax_scale = scale});
  return {.out = f.out, .lse = f.lse, .dq = b.dq, .dk = b.dk, .dv = b.dv};
}

Inputs random_inputs(int64_t total_q, int64_t total_k, Heads heads, int64_t d, int64_t dv,
                     at::ScalarType dtype = at::kFloat) {
  at::manual_seed(17 * total_q + total_k + d);
  const auto tensor = [&](int64_t tokens, int64_t h, int64_t dim) { return at::randn({tokens, h, dim}).to(dtype); };
  return {.q = tensor(total_q, heads.q, d),
          .k = tensor(total_k, heads.kv, d),
          .v = tensor(total_k, heads.kv, dv),
          .dout = tensor(total_q, heads.q, dv)};
}

double largest_finite(const at::Tensor& t) {
  return t.numel() == 0 ? 0 : t.masked_fill(t.isfinite().logical_not(), 0).abs().max().item<double>();
}

// What errors are measured in: the largest value, or the size of its terms where they cancel to (almost) nothing.
double unit_of(const at::Tensor& want, double terms) {
  const double largest = largest_finite(want);
  return largest > 1e-6 * terms ? largest : terms;
}

double worst_difference(const at::Tensor& got, const at::Tensor& want) {
  return largest_finite(got.to(at::kDouble) - want);
}

void expect_within(const char* name, const at::Tensor& got, const at::Tensor& want, double limit) {
  EXPECT_TRUE(testing::close(got, want, {.absolute = limit})) << name;
}

void expect_close(const Results& got, const Results& want, double tolerance) {
  expect_within("out", got.out, want.out, tolerance * unit_of(want.out, 0));
  expect_within("lse", got.lse, want.lse, tolerance * unit_of(want.lse, 1));
  expect_within("dq", got.dq, want.dq, tolerance * unit_of(want.dq, want.dq_terms));
  expect_within("dk", got.dk, want.dk, tolerance * unit_of(want.dk, want.dk_terms));
  expect_within("dv", got.dv, want.dv, tolerance * unit_of(want.dv, 0));
}

// Errors at most `factor` times those of the same formula computed plainly in the type of the inputs; beside it, where
// terms cancel and the plain formula hits 0 by luck, 1e-6 of their size.
void expect_as_good_as_plain(const Results& got, const Results& plain, const Results& want, double factor) {
  const auto limit = [&](const at::Tensor& plainly, const at::Tensor& exact, double terms) {
    return factor * worst_difference(plainly, exact) + 1e-6 * terms;
  };
  expect_within("out", got.out, want.out, limit(plain.out, want.out, 0));
  expect_within("lse", got.lse, want.lse, limit(plain.lse, want.lse, 0));
  expect_within("dq", got.dq, want.dq, limit(plain.dq, want.dq, want.dq_terms));
  expect_within("dk", got.dk, want.dk, limit(plain.dk, want.dk, want.dk_terms));
  expect_within("dv", got.dv, want.dv, limit(plain.dv, want.dv, 0));
}

void expect_equal(const Results& a, const Results& b) {
  EXPECT_TRUE(at::equal(a.out, b.out));
  EXPECT_TRUE(at::equal(a.lse, b.lse));
  EXPECT_TRUE(at::equal(a.dq, b.dq));
  EXPECT_TRUE(at::equal(a.dk, b.dk));
  EXPECT_TRUE(at::equal(a.dv, b.dv));
}

MaskCase causal(int64_t total_q, int64_t total_k) {
  return {.name = "causal",
          .slices = {{{0, total_q}, {0, total_k}, MaskType::kCausal}},
          .total_q = total_q,
          .total_k = total_k};
}

MaskCase documents(const std::vector<int64_t>& lengths, MaskType type) {
  MaskCase c{.name = "documents"};
  for (int64_t length : lengths) {
    c.slices.push_back({{c.total_q, c.total_q + length}, {c.total_q, c.total_q + length}, type});
    c.total_q += length;
  }
  c.total_k = c.total_q;
  return c;
}

MaskCase named(std::string name, MaskCase c) {
  c.name = std::move(name);
  return c;
}

// Row r attends every second key up to r: no tile has one interval a row.
MaskCase comb(int64_t total) {
  MaskCase c{.name = "comb", .total_q = total, .total_k = total};
  for (int64_t k = 0; k < total; k += 2) c.slices.push_back({{k, total}, {k, k + 1}, MaskType::kFull});
  return c;
}

std::vector<MaskCase> mask_cases() {
  constexpr auto kFull = MaskType::kFull, kCausal = MaskType::kCausal;
  return {
      {"full", {{{0, 200}, {0, 200}, kFull}}, 200, 200},
      named("causal", causal(300, 300)),
      named("causal_more_keys", causal(130, 300)),
      named("causal_more_queries", causal(300, 130)),
      {"inverse_causal", {{{0, 260}, {0, 260}, MaskType::kInvCausal}}, 260, 260},
      {"band", {{{0, 150}, {0, 290}, MaskType::kBiCausal}}, 150, 290},
      {"diagonal", {{{0, 270}, {0, 270}, MaskType::kBiCausal}}, 270, 270},
      named("documents_causal", documents({5, 70, 1, 128, 3, 90, 40}, kCausal)),
      named("documents_full", documents({17, 129, 64, 2, 2, 1, 100}, kFull)),
      {"window", {{{0, 64}, {0, 64}, kCausal}, {{64, 400}, {1, 400}, MaskType::kBiCausal}}, 400, 400},
      {"prefix_tree",
       {{{0, 100}, {0, 100}, kCausal},
        {{100, 160}, {0, 100}, kFull},
        {{100, 160}, {100, 160}, kCausal},
        {{160, 290}, {0, 100}, kFull},
        {{160, 290}, {160, 290}, kCausal}},
       290,
       290},
      {"block_causal",
       {{{0, 100}, {0, 100}, kFull}, {{100, 260}, {0, 260}, kFull}, {{260, 300}, {0, 300}, kFull}},
       300,
       300},
      {"overlapping",
       {{{0, 150}, {0, 150}, kFull}, {{100, 250}, {50, 200}, kCausal}, {{20, 120}, {10, 60}, kFull}},
       250,
       200},
      {"rows_without_keys", {{{10, 20}, {3, 9}, kFull}, {{140, 141}, {0, 200}, kFull}}, 300, 200},
      {"keys_without_rows", {{{0, 140}, {130, 140}, kCausal}}, 140, 400},
      named("comb", comb(300)),
      {"single_pair", {{{0, 1}, {0, 1}, kFull}}, 1, 1},
      {"scattered_pairs", {{{0, 1}, {256, 257}, kFull}, {{256, 257}, {0, 1}, kFull}}, 257, 257},
      {"nothing", {}, 150, 140},
  };
}

std::string isa_name(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kGeneric: return "generic";
    case CpuIsa::kAvx2: return "avx2";
    case CpuIsa::kAvx512: return "avx512";
    case CpuIsa::kAvx512Bf16: return "avx512_bf16";
    case CpuIsa::kAmx: return "amx";
  }
  return "";
}

std::vector<CpuIsa> isas() {
  std::vector<CpuIsa> found;
  for (CpuIsa isa : {CpuIsa::kGeneric, CpuIsa::kAvx2, CpuIsa::kAvx512, CpuIsa::kAvx512Bf16, CpuIsa::kAmx}) {
    if (isa <= best_cpu_isa()) found.push_back(isa);
  }
  return found;
}

// One thread, but for the test that compares counts: the products here are too small to share.
class OneThread : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
const auto* const kOneThread = ::testing::AddGlobalTestEnvironment(new OneThread);

// Read when the process begins, so in processes of their own.
TEST(CpuIsa, StaysWithinWhatLibTorchIsAllowed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr const char* kVariable = "ATEN_CPU_CAPABILITY";
  const char* const before = std::getenv(kVariable);
  const std::string restored = before ? before : "";
  for (const auto& [allowed, most] : {std::pair{"default", CpuIsa::kGeneric}, std::pair{"avx2", CpuIsa::kAvx2}}) {
    setenv(kVariable, allowed, 1);
    EXPECT_EXIT(std::exit(best_cpu_isa() <= most ? 0 : 1), ::testing::ExitedWithCode(0), "") << allowed;
  }
  before ? setenv(kVariable, restored.c_str(), 1) : unsetenv(kVariable);
}

class MagiMask : public ::testing::TestWithParam<std::tuple<CpuIsa, MaskCase>> {};

TEST_P(MagiMask, EqualsFloat64) {
  const auto& [isa, c] = GetParam();
  const auto backend = make_magi_backend(isa);
  for (Heads heads : {Heads{2, 2}, Heads{4, 2}, Heads{8, 1}}) {
    const Inputs in = random_inputs(c.total_q, c.total_k, heads, 32, 32);
    expect_close(run(*backend, c.spec(), in, 0.2), dense_attention(dense(c), in, 0.2, at::kDouble), 1e-5);
  }
}

TEST_P(MagiMask, Float64) {
  const auto& [isa, c] = GetParam();
  const Inputs in = random_inputs(c.total_q, c.total_k, {2, 1}, 12, 20, at::kDouble);
  expect_close(run(*make_magi_backend(isa), c.spec(), in, 0.3), dense_attention(dense(c), in, 0.3, at::kDouble), 1e-12);
}

TEST_P(MagiMask, HalfPrecisionWithinTwiceThePlainError) {
  const auto& [isa, c] = GetParam();
  for (at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const Inputs in = random_inputs(c.total_q, c.total_k, {4, 2}, 64, 48, dtype);
    expect_as_good_as_plain(run(*make_magi_backend(isa), c.spec(), in, 0.125),
                            dense_attention(dense(c), in, 0.125, dtype),
                            dense_attention(dense(c), in, 0.125, at::kDouble), 2);
  }
}

INSTANTIATE_TEST_SUITE_P(Masks, MagiMask,
                         ::testing::Combine(::testing::ValuesIn(isas()), ::testing::ValuesIn(mask_cases())),
                         [](const auto& info) {
                           return isa_name(std::get<0>(info.param)) + "_" + std::get<1>(info.param).name;
                         });

class MagiShape : public ::testing::TestWithParam<CpuIsa> {
 protected:
  void compare(const MaskCase& c, const Inputs& in, double tolerance = 1e-5) {
    expect_close(run(*make_magi_backend(GetParam()), c.spec(), in, 0.1),
                 dense_attention(dense(c), in, 0.1, at::kDouble), tolerance);
  }
};

TEST_P(MagiShape, HeadDims) {
  const MaskCase c = documents({60, 90, 7}, MaskType::kCausal);
  for (auto [d, dv] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {3, 3}, {32, 32}, {64, 64}, {80, 80}, {128, 128}, {512, 512}, {64, 128}, {33, 1}, {192, 17}}) {
    SCOPED_TRACE("head_dim " + std::to_string(d) + ", head_dim_v " + std::to_string(dv));
    compare(c, random_inputs(c.total_q, c.total_k, {4, 2}, d, dv));
  }
}

TEST_P(MagiShape, EdgesOfTilesAndPanels) {
  for (int64_t n : {1, 2, 15, 16, 17, 31, 33, 127, 128, 129, 255, 256, 257, 640}) {
    SCOPED_TRACE("tokens " + std::to_string(n));
    compare(causal(n, n), random_inputs(n, n, {1, 1}, 16, 16));
    compare(causal(n, 257), random_inputs(n, 257, {1, 1}, 16, 16));
    compare(causal(257, n), random_inputs(257, n, {1, 1}, 16, 16));
  }
}

TEST_P(MagiShape, NoTokens) {
  for (auto [q, k] : std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {0, 5}, {5, 0}}) {
    const MaskCase c{.name = "none", .total_q = q, .total_k = k};
    const Results got = run(*make_magi_backend(GetParam()), c.spec(), random_inputs(q, k, {2, 2}, 8, 8), 1.0);
    EXPECT_EQ(got.out.count_nonzero().item<int64_t>(), 0);
    EXPECT_TRUE((got.lse == -kInfinity).all().item<bool>());
    EXPECT_EQ(got.dq.count_nonzero().item<int64_t>(), 0);
    EXPECT_EQ(got.dk.count_nonzero().item<int64_t>() + got.dv.count_nonzero().item<int64_t>(), 0);
  }
}

TEST_P(MagiShape, Strides) {
  const MaskCase c = documents({100, 60}, MaskType::kCausal);
  const Heads heads{4, 2};
  const Inputs plain = random_inputs(160, 160, heads, 24, 40);
  const auto each = [&](auto change) {
    Inputs in = plain;
    for (at::Tensor* t : {&in.q, &in.k, &in.v, &in.dout}) *t = change(*t);
    compare(c, in);
  };
  each([](const at::Tensor& t) { return t.transpose(0, 1).contiguous().transpose(0, 1); });  // heads outermost
  each([](const at::Tensor& t) { return t.transpose(0, 2).contiguous().transpose(0, 2); });  // dims outermost
  each([](const at::Tensor& t) { return at::cat({t, t}, 2).narrow(2, 3, t.size(2)); });      // rows off alignment
  each([](const at::Tensor& t) { return t.repeat_interleave(2, 2).slice(2, 0, -1, 2); });    // inner stride 2
  each([](const at::Tensor& t) { return t.narrow(1, 0, 1).expand_as(t); });                  // one head for all
  each([](const at::Tensor& t) { return t.narrow(0, 0, 1).expand_as(t); });                  // one token for all
  each([](const at::Tensor& t) { return t.narrow(2, 0, 1).expand_as(t); });                  // one value a row
  each([](const at::Tensor& t) { return t.flip(0).as_strided(t.sizes(), t.strides()); });
}

TEST_P(MagiShape, GradientOfLossWithoutStrides) {
  const MaskCase c = causal(140, 140);
  Inputs in = random_inputs(140, 140, {2, 1}, 16, 16);
  in.dout = at::ones({}).expand_as(in.dout);  // what sum().backward() brings
  compare(c, in);
}

TEST_P(MagiShape, SameForEveryThreadCountAndRun) {
  const MaskCase c = documents({900, 3, 700, 400}, MaskType::kCausal);
  const Inputs in = random_inputs(c.total_q, c.total_k, {12, 6}, 32, 32);  // more heads than are packed at a time
  const auto backend = make_magi_backend(GetParam());
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Results one = run(*backend, c.spec(), in, 0.2);
  at::set_num_threads(2);
  const Results two = run(*backend, c.spec(), in, 0.2);
  at::set_num_threads(4);
  const Results four = run(*backend, c.spec(), in, 0.2);
  const Results again = run(*backend, c.spec(), in, 0.2);
  at::set_num_threads(threads);
  expect_equal(one, two);
  expect_equal(one, four);
  expect_equal(four, again);
}

// Logits up to some ten thousands: a rounding of a score or of lse is then an error of 1e-3 in a probability. Ours are
// in base 2, half as large again, and lse is rounded once more than in the plain formula.
TEST_P(MagiShape, LargeLogitsNearlyAsGoodAsPlainFloat) {
  const MaskCase c = causal(200, 200);
  Inputs in = random_inputs(200, 200, {2, 2}, 64, 64);
  in.q = in.q * 300;
  expect_as_good_as_plain(run(*make_magi_backend(GetParam()), c.spec(), in, 1.0),
                          dense_attention(dense(c), in, 1.0, at::kFloat),
                          dense_attention(dense(c), in, 1.0, at::kDouble), 8);
}

// Each query attends its own key alone, so out is v: every finite 16-bit value comes back. Not bf16's subnormals, which
// products in bf16 take for 0.
TEST_P(MagiShape, EveryFiniteHalfValueSurvives) {
  for (at::ScalarType dtype : {at::kHalf, at::kBFloat16}) {
    const at::Tensor all = at::arange(-32768, 32768).to(at::kShort).view(dtype);
    const at::Tensor kept = dtype == at::kHalf ? all.isfinite() : all.isfinite() & (all.abs() >= 0x1p-126);
    const at::Tensor v = all.masked_select(kept).reshape({-1, 1, 64}).contiguous();
    const MaskCase c{.name = "diagonal",
                     .slices = {{{0, v.size(0)}, {0, v.size(0)}, MaskType::kBiCausal}},
                     .total_q = v.size(0),
                     .total_k = v.size(0)};
    const Inputs in{.q = at::ones_like(v), .k = at::ones_like(v), .v = v, .dout = v};
    const auto backend = make_magi_backend(GetParam());
    const at::Tensor out =
        backend->forward(*prepare(*backend, c.spec(), in), {.q = in.q, .k = in.k, .v = in.v, .softmax_scale = 1.0}).out;
    EXPECT_TRUE(at::equal(out, v));
  }
}

// Two halves of the keys merged by their lse, as under context parallelism: the gradients of the halves, taken with
// the merged output and lse, add up to those of the whole.
TEST_P(MagiShape, BackwardTakesMergedOutputAndLse) {
  const MaskCase whole = causal(200, 200);
  const Inputs in = random_inputs(200, 200, {2, 1}, 16, 16);
  const auto backend = make_magi_backend(GetParam());
  const MaskCase first{
      "first", {{{0, 100}, {0, 100}, MaskType::kCausal}, {{100, 200}, {0, 100}, MaskType::kFull}}, 200, 100};
  const MaskCase second{"second", {{{100, 200}, {0, 100}, MaskType::kCausal}}, 200, 100};
  const auto half = [&](int64_t begin) {
    return Inputs{.q = in.q, .k = in.k.narrow(0, begin, 100), .v = in.v.narrow(0, begin, 100), .dout = in.dout};
  };
  const Inputs a = half(0), b = half(100);
  const auto prepared_a = prepare(*backend, first.spec(), a), prepared_b = prepare(*backend, second.spec(), b);
  const ForwardResult fa = backend->forward(*prepared_a, {.q = a.q, .k = a.k, .v = a.v, .softmax_scale = 0.3});
  const ForwardResult fb = backend->forward(*prepared_b, {.q = b.q, .k = b.k, .v = b.v, .softmax_scale = 0.3});
  const at::Tensor lse = at::logaddexp(fa.lse, fb.lse);
  const at::Tensor out = fa.out * at::exp(fa.lse - lse).unsqueeze(2) + fb.out * at::exp(fb.lse - lse).unsqueeze(2);
  const auto gradients = [&](const Prepared& prepared, const Inputs& i) {
    return backend->backward(
        prepared, {.dout = i.dout, .q = i.q, .k = i.k, .v = i.v, .out = out, .lse = lse, .softmax_scale = 0.3});
  };
  const BackwardResult ga = gradients(*prepared_a, a), gb = gradients(*prepared_b, b);
  expect_close(
      {.out = out, .lse = lse, .dq = ga.dq + gb.dq, .dk = at::cat({ga.dk, gb.dk}), .dv = at::cat({ga.dv, gb.dv})},
      dense_attention(dense(whole), in, 0.3, at::kDouble), 1e-5);
}

TEST_P(MagiShape, NanReachesItsRow) {
  Inputs in = random_inputs(300, 300, {1, 1}, 16, 16);
  in.q[200].fill_(std::numeric_limits<float>::quiet_NaN());
  const auto backend = make_magi_backend(GetParam());
  const auto prepared = prepare(*backend, causal(300, 300).spec(), in);
  const ForwardResult got = backend->forward(*prepared, {.q = in.q, .k = in.k, .v = in.v, .softmax_scale = 1.0});
  EXPECT_TRUE(got.out[200].isnan().all().item<bool>());
  EXPECT_EQ(got.out.isnan().any(2).sum().item<int64_t>(), 1);
}

INSTANTIATE_TEST_SUITE_P(Isas, MagiShape, ::testing::ValuesIn(isas()),
                         [](const auto& info) { return isa_name(info.param); });

TEST(MagiQuery, AcceptsEveryMaskAndReportsAllRefusals) {
  const auto backend = make_magi_backend();
  const AttentionRequest good{.masks = {MaskFamily::kArbitrary},
                              .cross_lengths = true,
                              .empty_rows = true,
                              .dtype = DType::kBFloat16,
                              .heads_q = 8,
                              .heads_kv = 2,
                              .head_dim = 512,
                              .head_dim_v = 1,
                              .training = true,
                              .deterministic = true,
                              .cp_size = 4};
  EXPECT_TRUE(backend->query(good).ok());
  AttentionRequest bad = good;
  bad.heads_kv = 3;
  bad.head_dim = 513;
  bad.device = DeviceKind::kCuda;
  bad.softcap = 30;
  bad.attention_sink = true;
  bad.dropout = 0.1;
  bad.max_tokens = int64_t{1} << 31;
  std::vector<ReasonCode> codes;
  for (const Reason& reason : backend->query(bad).reasons) codes.push_back(reason.code);
  EXPECT_EQ(codes,
            (std::vector<ReasonCode>{ReasonCode::kHeads, ReasonCode::kHeadDim, ReasonCode::kLength, ReasonCode::kDevice,
                                     ReasonCode::kSoftcap, ReasonCode::kSink, ReasonCode::kDropout}));
}

}  // namespace
}  // namespace attnmux
