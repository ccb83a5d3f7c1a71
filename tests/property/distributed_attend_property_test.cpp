// One rank equals many: every random mask, sharded in every way, gives the results that one rank gives.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "attnmux/distributed_attend.h"
#include "common/compare.h"
#include "oracle/attention_oracle.h"
#include "oracle/cpu_backends.h"
#include "property/attention_case.h"
#include "property/check.h"
#include "reference/reference_backend.h"
#include "tiled_cpu/magi_backend.h"

namespace attnmux::testing {

struct Sharding {
  DispatchOptions dispatch;
  OverlapOptions overlap;
};

std::ostream& operator<<(std::ostream& out, const Sharding& sharding) {
  return out << "cp " << sharding.dispatch.cp << ", chunks of " << sharding.dispatch.chunk_size
             << (sharding.dispatch.pad ? ", padded" : "") << ", " << to_string(sharding.dispatch.solver) << ", "
             << sharding.overlap.forward.stages << " stages, " << sharding.overlap.backward.stages << " backward"
             << (sharding.overlap.keep_remote_keys ? ", remote keys kept" : "");
}

namespace {

using rc::gen::element;
using rc::gen::inRange;

constexpr int kMasks = 500;
constexpr double kFp64 = 1e-10;
constexpr double kFp32 = 2e-5;

rc::Gen<Sharding> random_sharding(const AttnMaskSpec& mask) {
  return rc::gen::exec([=] {
    Sharding sharding;
    sharding.dispatch.cp = *element<int64_t>(2, 3, 4, 8);
    sharding.dispatch.chunk_size = std::min<int64_t>(*inRange<int64_t>(1, 65), std::max<int64_t>(mask.total_q(), 1));
    sharding.dispatch.pad = mask.total_q() == mask.total_k() && *inRange(0, 4) == 0;
    sharding.dispatch.solver = *element(DispatchSolver::kMinHeap, DispatchSolver::kMinHeap, DispatchSolver::kIoAware,
                                        DispatchSolver::kSequential);
    sharding.overlap.forward.stages = *element<int64_t>(1, 2, 4);
    sharding.overlap.backward.stages = *element<int64_t>(1, 2, 4);
    sharding.overlap.keep_remote_keys = sharding.overlap.backward == sharding.overlap.forward;
    return sharding;
  });
}

RanksResult on_ranks(const std::shared_ptr<const AttentionBackend>& backend, const DistAttnPlan& plan,
                     const OracleInputs& inputs) {
  return attend_on_ranks(backend, plan, {inputs.q, inputs.k, inputs.v, inputs.dout},
                         {.softmax_scale = inputs.softmax_scale}, {.deadline = std::chrono::seconds(60)});
}

// Errors are relative to the sum of the absolute values that an element is the sum of.
void require_close(const std::string& what, const RanksResult& got, const AttentionResults& want,
                   const OracleResult& oracle, double tolerance) {
  const auto require = [&](const char* name, const at::Tensor& g, const at::Tensor& w, const OracleTensor& o) {
    const auto result = close_within(g, w, o.magnitude * tolerance);
    if (!result) RC_FAIL(what + ", " + name + ": " + result.message());
  };
  require("out", got.out, want.out, oracle.out);
  require("lse", got.lse, want.lse, oracle.lse);
  require("dq", got.dq, want.dq, oracle.dq);
  require("dk", got.dk, want.dk, oracle.dk);
  require("dv", got.dv, want.dv, oracle.dv);
}

// What the random cases have met, so that a change of the generators cannot empty the test.
struct Met {
  int ranks_without_queries = 0, ranks_without_keys = 0, uneven_tails = 0, empty_rows = 0, cross_lengths = 0,
      padded = 0, exchanges = 0, kept = 0;

  void count(const AttnMaskSpec& mask, const DistAttnPlan& plan) {
    const DispatchPlan& dispatch = plan.dispatch();
    bool no_queries = false, no_keys = false;
    for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
      no_queries = no_queries || dispatch.ranges_of(rank).empty();
      no_keys = no_keys || dispatch.key_ranges_of(rank).empty();
    }
    bool empty = false;
    for (int64_t row = 0; row < mask.total_q() && !empty; ++row) empty = mask.area({row, row + 1}) == 0;
    ranks_without_queries += no_queries;
    ranks_without_keys += no_keys;
    uneven_tails += mask.total_q() % dispatch.options.chunk_size != 0;
    empty_rows += empty;
    cross_lengths += mask.total_q() != mask.total_k();
    padded += dispatch.padding > 0;
    exchanges += plan.stages() > 0;
    kept += plan.stages() > 0 && plan.overlap().keep_remote_keys;
  }
};

TEST(DistributedAttendProperty, ManyRanksEqualOne) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto reference = make_reference_backend();
  const auto magi = make_magi_backend();
  Met met;
  check_property(kMasks, [&] {
    const AttentionCase c = *random_attention_case();
    const Sharding sharding = *random_sharding(c.mask);
    const DistAttnPlan plan(c.mask, sharding.dispatch, sharding.overlap);
    met.count(c.mask, plan);
    const OracleInputs wide = make_tensors(c, DType::kFloat64), narrow = make_tensors(c, DType::kFloat32);
    const OracleResult oracle = oracle_attention(c.mask, wide);
    require_close("reference fp64", on_ranks(reference, plan, wide), run(*reference, c.mask, wide), oracle, kFp64);
    require_close("reference fp32", on_ranks(reference, plan, narrow), run(*reference, c.mask, narrow), oracle, kFp32);
    require_close("magi fp32", on_ranks(magi, plan, narrow), run(*magi, c.mask, narrow), oracle, kFp32);
  });
  EXPECT_GT(met.ranks_without_queries, 10);
  EXPECT_GT(met.ranks_without_keys, 10);
  EXPECT_GT(met.uneven_tails, 50);
  EXPECT_GT(met.empty_rows, 50);
  EXPECT_GT(met.cross_lengths, 50);
  EXPECT_GT(met.padded, 10);
  EXPECT_GT(met.exchanges, 250);
  EXPECT_GT(met.kept, 50);
  at::set_num_threads(threads);
}

TEST(DistributedAttendProperty, OneRankIsTheBackendItself) {
  check_property(60, [&] {
    const AttentionCase c = *random_attention_case();
    const DType dtype = *element(DType::kFloat32, DType::kBFloat16);
    const OracleInputs inputs = make_tensors(c, dtype);
    const auto backend = make_magi_backend();
    const RanksResult got = on_ranks(backend, DistAttnPlan(c.mask, {.cp = 1}, {.forward = {.stages = 2}}), inputs);
    const AttentionResults want = run(*backend, c.mask, inputs);
    const auto require = [](const char* name, const at::Tensor& g, const at::Tensor& w) {
      const auto result = close(g, w, {});
      if (!result) RC_FAIL(std::string(name) + ": " + result.message());
    };
    require("out", got.out, want.out);
    require("lse", got.lse, want.lse);
    require("dq", got.dq, want.dq);
    require("dk", got.dk, want.dk);
    require("dv", got.dv, want.dv);
  });
}

}  // namespace
}  // namespace attnmux::testing
