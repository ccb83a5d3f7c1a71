// What must not change a result, whatever the result is: the order of slices and of documents, the layout, cutting the
// keys into halves that are merged by lse.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "attnmux/attend.h"
#include "attnmux/mask_builders.h"
#include "common/compare.h"
#include "oracle/attention_oracle.h"
#include "oracle/cpu_backends.h"
#include "property/attention_case.h"
#include "property/check.h"

namespace attnmux::testing {
namespace {

constexpr int kCases = 60;
constexpr double kRelative = 1e-5;

class AttentionMetamorphic : public ::testing::TestWithParam<CpuBackend> {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  const AttentionBackend& backend() const { return *GetParam().backend; }
  bool takes(const AttnMaskSpec& mask, const OracleInputs& inputs) const {
    return backend().query(request_of(mask, inputs)).ok();
  }
  // Random cases; those that the backend refuses are not counted, and some must be.
  template <class Property>
  void check_some(const Property& property) {
    int executed = 0;
    check_property(kCases, [&] { executed += property(); });
    EXPECT_GT(executed, 0);
  }
};

void require_equal(const char* name, const at::Tensor& got, const at::Tensor& want) {
  const auto result = close(got, want, {});
  if (!result) RC_FAIL(std::string(name) + ": " + result.message());
}

void require_close(const char* name, const at::Tensor& got, const at::Tensor& want, const at::Tensor& magnitude) {
  const auto result = close_within(got, want, magnitude * kRelative);
  if (!result) RC_FAIL(std::string(name) + ": " + result.message());
}

void require_equal(const AttentionResults& got, const AttentionResults& want) {
  require_equal("out", got.out, want.out);
  require_equal("lse", got.lse, want.lse);
  require_equal("dq", got.dq, want.dq);
  require_equal("dk", got.dk, want.dk);
  require_equal("dv", got.dv, want.dv);
}

TEST_P(AttentionMetamorphic, SliceOrderAndRepetitionChangeNothing) {
  check_some([&] {
    const AttentionCase c = *random_attention_case();
    const OracleInputs inputs = make_tensors(c, DType::kFloat32);
    if (!takes(c.mask, inputs)) return false;
    std::vector<AttnSlice> slices = c.mask.slices();
    std::reverse(slices.begin(), slices.end());
    if (!slices.empty()) slices.push_back(slices[*rc::gen::inRange<size_t>(0, slices.size())]);
    const AttnMaskSpec reordered(slices, c.mask.total_q(), c.mask.total_k());
    require_equal(run(backend(), reordered, inputs), run(backend(), c.mask, inputs));
    return true;
  });
}

TEST_P(AttentionMetamorphic, DocumentsDoNotKnowTheirPlace) {
  check_property(kCases, [&] {
    const auto lengths = *rc::gen::container<std::vector<int64_t>>(4, rc::gen::inRange<int64_t>(1, 40));
    const MaskType type = *rc::gen::element(MaskType::kFull, MaskType::kCausal);
    std::vector<int64_t> order = {0, 1, 2, 3};
    std::rotate(order.begin(), order.begin() + *rc::gen::inRange(1, 4), order.end());
    if (*rc::gen::arbitrary<bool>()) std::swap(order[0], order[1]);

    AttentionCase c = {.mask_kind = "varlen", .mask = varlen_mask(lengths, type)};
    c.heads_kv = 2;
    c.group = *rc::gen::element<int64_t>(1, 2);
    c.head_dim = c.head_dim_v = *rc::gen::element<int64_t>(8, 17);
    c.softmax_scale = 0.3;
    c.seed = *rc::gen::inRange<uint64_t>(0, 1000);
    const OracleInputs inputs = make_tensors(c, DType::kFloat32);

    std::vector<int64_t> permuted_lengths, tokens;
    for (int64_t document : order) {
      const int64_t begin = std::accumulate(lengths.begin(), lengths.begin() + document, int64_t{0});
      permuted_lengths.push_back(lengths[document]);
      for (int64_t i = 0; i < lengths[document]; ++i) tokens.push_back(begin + i);
    }
    const at::Tensor index = at::tensor(tokens, at::kLong);
    const auto permute = [&](const at::Tensor& tensor) { return tensor.index_select(0, index); };
    const AttentionResults got = run(backend(), varlen_mask(permuted_lengths, type),
                                     {.q = permute(inputs.q),
                                      .k = permute(inputs.k),
                                      .v = permute(inputs.v),
                                      .dout = permute(inputs.dout),
                                      .softmax_scale = inputs.softmax_scale});
    const AttentionResults want = run(backend(), c.mask, inputs);
    const OracleResult oracle = oracle_attention(c.mask, inputs);
    require_close("out", got.out, permute(want.out), permute(oracle.out.magnitude));
    require_close("lse", got.lse, permute(want.lse), permute(oracle.lse.magnitude));
    require_close("dq", got.dq, permute(want.dq), permute(oracle.dq.magnitude));
    require_close("dk", got.dk, permute(want.dk), permute(oracle.dk.magnitude));
    require_close("dv", got.dv, permute(want.dv), permute(oracle.dv.magnitude));
  });
}

AttentionResults run_attend(const CpuBackend& candidate, const AttnMaskSpec& mask, const OracleInputs& inputs,
                            Layout layout) {
  const auto leaf = [&](const at::Tensor& thd) {
    return (layout == Layout::kTHD ? thd : thd.unsqueeze(0)).detach().requires_grad_(true);
  };
  const auto thd = [&](const at::Tensor& tensor) { return layout == Layout::kTHD ? tensor : tensor.squeeze(0); };
  const at::Tensor q = leaf(inputs.q), k = leaf(inputs.k), v = leaf(inputs.v);
  PreparedCache cache;
  const AttendResult result =
      attend(candidate.backend, mask, q, k, v, {.layout = layout, .softmax_scale = inputs.softmax_scale}, cache);
  result.out.backward(layout == Layout::kTHD ? inputs.dout : inputs.dout.unsqueeze(0));
  return {.out = thd(result.out), .lse = result.lse, .dq = thd(q.grad()), .dk = thd(k.grad()), .dv = thd(v.grad())};
}

TEST_P(AttentionMetamorphic, LayoutsAndTheAutogradNodeChangeNothing) {
  check_some([&] {
    const AttentionCase c = *random_attention_case();
    const OracleInputs inputs = make_tensors(c, DType::kFloat32);
    if (!takes(c.mask, inputs)) return false;
    const AttentionResults want = run(backend(), c.mask, inputs);
    require_equal(run_attend(GetParam(), c.mask, inputs, Layout::kTHD), want);
    require_equal(run_attend(GetParam(), c.mask, inputs, Layout::kBSHD), want);
    return true;
  });
}

// The columns of a mask that belong to `keys`.
AttnMaskSpec columns(const AttnMaskSpec& mask, const Range& keys) {
  std::vector<uint8_t> pairs;
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    for (int64_t k = keys.begin; k < keys.end; ++k) pairs.push_back(mask.allowed(q, k));
  }
  return mask_from_dense(pairs, mask.total_q(), keys.size());
}

// As under context parallelism: outputs of both halves merged by lse; backward of each with the merged out and lse.
TEST_P(AttentionMetamorphic, HalvesOfTheKeysMergeIntoTheWhole) {
  check_some([&] {
    AttentionCase c = *random_attention_case();
    const int64_t total_k = c.mask.total_k();
    RC_PRE(total_k >= 2);
    const OracleInputs inputs = make_tensors(c, DType::kFloat32);
    const int64_t cut = *rc::gen::inRange<int64_t>(1, total_k);
    const Range halves[] = {{0, cut}, {cut, total_k}};
    const AttnMaskSpec masks[] = {columns(c.mask, halves[0]), columns(c.mask, halves[1])};
    OracleInputs parts[2];
    for (int i = 0; i < 2; ++i) {
      parts[i] = inputs;
      parts[i].k = inputs.k.slice(0, halves[i].begin, halves[i].end);
      parts[i].v = inputs.v.slice(0, halves[i].begin, halves[i].end);
      if (!takes(masks[i], parts[i])) return false;
    }
    std::shared_ptr<const Prepared> prepared[2];
    ForwardResult forward[2];
    for (int i = 0; i < 2; ++i) {
      prepared[i] = backend().prepare(masks[i], shape_of(parts[i]));
      forward[i] = backend().forward(
          *prepared[i], {.q = parts[i].q, .k = parts[i].k, .v = parts[i].v, .softmax_scale = inputs.softmax_scale});
    }
    const at::Tensor lse = at::logaddexp(forward[0].lse, forward[1].lse);
    at::Tensor out = at::zeros_like(forward[0].out);
    for (const ForwardResult& half : forward)
      out += half.out * at::exp(half.lse - lse).nan_to_num(0).unsqueeze(2);  // NaN: no keys in either half
    BackwardResult backward[2];
    for (int i = 0; i < 2; ++i) {
      backward[i] = GetParam().backend->backward(*prepared[i], {.dout = inputs.dout,
                                                                .q = parts[i].q,
                                                                .k = parts[i].k,
                                                                .v = parts[i].v,
                                                                .out = out,
                                                                .lse = lse,
                                                                .softmax_scale = inputs.softmax_scale});
    }
    const OracleResult want = oracle_attention(c.mask, inputs);
    require_close("out", out, want.out.value, want.out.magnitude);
    require_close("lse", lse, want.lse.value, want.lse.magnitude);
    require_close("dq", backward[0].dq + backward[1].dq, want.dq.value, want.dq.magnitude);
    require_close("dk", at::cat({backward[0].dk, backward[1].dk}), want.dk.value, want.dk.magnitude);
    require_close("dv", at::cat({backward[0].dv, backward[1].dv}), want.dv.value, want.dv.magnitude);
    return true;
  });
}

INSTANTIATE_TEST_SUITE_P(, AttentionMetamorphic, ::testing::ValuesIn(cpu_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux::testing
