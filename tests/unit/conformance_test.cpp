// The conformance suite's own parts: case strings, masks, truth, comparison, records, profiles.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "attnmux/error.h"
#include "common/compare.h"
#include "conformance/case.h"
#include "conformance/case_mask.h"
#include "conformance/case_result.h"
#include "conformance/compare.h"
#include "conformance/elf_facts.h"
#include "conformance/grid.h"
#include "conformance/profile.h"
#include "conformance/rank_cases.h"
#include "conformance/sha256.h"
#include "conformance/subject.h"
#include "conformance/truth.h"
#include "oracle/attention_oracle.h"
#include "oracle/plain_attention.h"

namespace attnmux::conformance {
namespace {

using ::testing::HasSubstr;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<Case> whole_grid() {
  std::vector<Case> cases;
  for (const Family family : all_families()) {
    for (Case& c : grid(family, {.gradients = true, .on_gpu = true})) cases.push_back(std::move(c));
  }
  return cases;
}

TEST(CaseText, ReadsTheExample) {
  const Case c = parse_case("fwd/mask=causal,sq=257,sk=513,hq=8,hk=2,d=128,dt=bf16,seed=7");
  EXPECT_EQ(c, (Case{.mask = "causal", .sq = 257, .sk = 513, .hq = 8, .hk = 2, .d = 128, .dt = DType::kBFloat16}));
  EXPECT_EQ(to_string(c), "fwd/mask=causal,sq=257,sk=513,hq=8,hk=2,d=128,dt=bf16,seed=7");
}

TEST(CaseText, EveryCaseOfTheGridRoundTripsAndIsThereOnce) {
  std::set<std::string> seen;
  for (const Case& c : whole_grid()) {
    EXPECT_EQ(parse_case(to_string(c)), c) << to_string(c);
    EXPECT_TRUE(seen.insert(to_string(c)).second) << to_string(c) << " is there twice";
  }
  EXPECT_GT(seen.size(), 350u);
}

TEST(CaseText, ReadsRanks) {
  const Case c = parse_case("cp/mask=causal,sq=20,sk=20,cp=8,stages=2");
  EXPECT_EQ(to_string(c), "cp/mask=causal,sq=20,sk=20,hq=2,hk=2,d=64,dt=fp32,cp=8,chunk=16,stages=2,seed=7");
  EXPECT_EQ(to_string(parse_case("group/check=casts,cp=4")), "group/check=casts,cp=4,seed=7");
  EXPECT_TRUE(is_of_groups(Family::kFaults));
  EXPECT_FALSE(is_of_groups(Family::kCp));
}

TEST(CaseText, MissingKeysKeepTheirDefaultsAndListsGiveTheLengths) {
  const Case c = parse_case("bwd/mask=varlen:3+0+4,dv=32");
  EXPECT_EQ(to_string(c), "bwd/mask=varlen:3+0+4,sq=7,sk=7,hq=2,hk=2,d=64,dv=32,dt=fp32,seed=7");
}

struct BadCase {
  const char* text;
  const char* expected;
};
class BadCaseTest : public ::testing::TestWithParam<BadCase> {};

TEST_P(BadCaseTest, IsRefusedByName) {
  try {
    parse_case(GetParam().text);
    FAIL() << "taken";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr(GetParam().expected));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadCaseTest,
    ::testing::Values(BadCase{"fwd", "no '/'"}, BadCase{"fwdd/mask=full", "\"fwd\""},
                      BadCase{"fwd/mask=cuasal", "\"causal\""}, BadCase{"fwd/msk=full", "\"mask\""},
                      BadCase{"fwd/sq=-1", "sq=-1"}, BadCase{"fwd/sq=4x", "sq=4x"}, BadCase{"fwd/sq=4,sq=4", "twice"},
                      BadCase{"fwd/dt=fp8", "fp8"}, BadCase{"fwd/mask", "no value"},
                      BadCase{"fwd/hq=3,hk=2", "multiple"}, BadCase{"fwd/mask=window:1:2,sq=4,sk=5", "sq == sk"},
                      BadCase{"fwd/mask=varlen:3+4,sq=8", "add up to 7"}, BadCase{"fwd/values=rand", "randn"},
                      BadCase{"bwd/check=mergd", "\"merged\""}, BadCase{"fwd/check=grad", "\"grad\""},
                      BadCase{"meta/mask=full", "mask"}, BadCase{"fwd/cp=2", "\"cp\""},
                      BadCase{"cp/sq=8,chunk=9", "chunk must not exceed sq"}, BadCase{"cp/cp=65", "from 1 to 64"},
                      BadCase{"group/check=cats", "\"casts\""}, BadCase{"group/check=casts,sq=3", "\"sq\""},
                      BadCase{"faults/check=throw,cp=1", "from 2 to 64"}));

TEST(CaseMask, PredicateAndSpecAreTheSamePairs) {
  std::set<std::string> seen;
  for (const Case& c : whole_grid()) {
    if (c.family == Family::kMeta || c.family == Family::kQuery || c.sq * c.sk > 100'000) continue;
    if (!seen.insert(c.mask + "/" + std::to_string(c.sq) + "/" + std::to_string(c.sk) + "/" + std::to_string(c.seed))
             .second) {
      continue;
    }
    const CaseMask mask = mask_of(c);
    ASSERT_EQ(mask.spec.total_q(), c.sq);
    ASSERT_EQ(mask.spec.total_k(), c.sk);
    int64_t area = 0;
    for (int64_t q = 0; q < c.sq; ++q) {
      for (int64_t k = 0; k < c.sk; ++k) {
        area += mask.allowed(q, k);
        ASSERT_EQ(mask.spec.allowed(q, k), mask.allowed(q, k)) << to_string(c) << " at " << q << ", " << k;
      }
    }
    EXPECT_EQ(area, mask.spec.area()) << to_string(c);
  }
  EXPECT_GT(seen.size(), 50u);
}

at::Tensor column(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble).view({-1, 1, 1});
}
double at(const at::Tensor& tensor, int64_t token) { return tensor.select(0, token).item<double>(); }

// q = (1, ln 3), k = (0, 1), v = (4, 8), scale 1, causal. Row 1 has scores (0, ln 3): p = (1/4, 3/4), out = 7, lse = ln
// 4; with dout = 1: dp = (4, 8), delta = 7, ds = (-3/4, 3/4).
TEST(Truth, CausalTwoByTwoByHand) {
  const at::Tensor allowed = at::tensor({1, 0, 1, 1}, at::kInt).to(at::kBool).view({2, 2});
  const Truth truth = truth_of(allowed,
                               {.q = column({1, std::log(3.0)}),
                                .k = column({0, 1}),
                                .v = column({4, 8}),
                                .dout = column({1, 1}),
                                .softmax_scale = 1},
                               Gradients::kYes);
  EXPECT_NEAR(at(truth.out.value, 0), 4, 1e-14);
  EXPECT_NEAR(at(truth.out.value, 1), 7, 1e-14);
  EXPECT_NEAR(at(truth.lse.value, 1), std::log(4.0), 1e-14);
  EXPECT_NEAR(at(truth.dq.value, 1), 0.75, 1e-14);
  EXPECT_NEAR(at(truth.dk.value, 0), -0.75 * std::log(3.0), 1e-14);
  EXPECT_NEAR(at(truth.dv.value, 0), 1.25, 1e-14);
}

TEST(Truth, GradientsMatchFiniteDifferences) {
  const Case c = parse_case("bwd/mask=holes,sq=7,sk=6,hq=4,hk=2,d=3,dv=2,dt=fp64,seed=3");
  const CaseMask mask = mask_of(c);
  const at::Tensor allowed = allowed_matrix(c, mask);
  Inputs in = inputs_of(c, mask);
  const Truth truth = truth_of(allowed, in, Gradients::kYes);
  const auto loss = [&] { return (truth_of(allowed, in, Gradients::kNo).out.value * in.dout).sum().item<double>(); };
  constexpr double kStep = 1e-5;
  for (auto [name, tensor, gradient] :
       {std::tuple{"dq", in.q, truth.dq.value}, {"dk", in.k, truth.dk.value}, {"dv", in.v, truth.dv.value}}) {
    double* x = tensor.data_ptr<double>();
    at::Tensor numeric = at::empty_like(tensor);
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      const double was = x[i];
      x[i] = was + kStep;
      const double above = loss();
      x[i] = was - kStep;
      const double below = loss();
      x[i] = was;
      numeric.data_ptr<double>()[i] = (above - below) / (2 * kStep);
    }
    EXPECT_TRUE(testing::close(gradient, numeric, {.absolute = 1e-8})) << name;
    EXPECT_GT(gradient.abs().max().item<double>(), 0.05) << name << " is all but zero: the check says nothing";
  }
}

// Two oracles that share no code: autograd over a matrix, and loops with explicit formulas.
TEST(Truth, AgreesWithTheLoopsOfTheOtherOracle) {
  for (const char* text : {"bwd/mask=union,sq=33,sk=40,hq=4,hk=2,d=8,dt=fp64", "bwd/mask=holes,sq=20,sk=30,d=8,dt=fp64",
                           "bwd/mask=causal,sq=20,sk=20,d=8,dt=fp64,values=large",
                           "bwd/mask=window:3:1,sq=20,sk=20,d=8,dv=5,dt=fp64,values=bait"}) {
    const conformance::Setup setup(parse_case(text));
    const Truth got = truth_of(setup.allowed, setup.in, Gradients::kYes);
    const testing::OracleResult want = testing::oracle_attention(setup.mask.spec, setup.in);
    const auto same = [&](const char* name, const TruthTensor& a, const testing::OracleTensor& b) {
      EXPECT_TRUE(testing::close_within(a.value, b.value, b.magnitude * 1e-11 + 1e-13)) << text << ": " << name;
    };
    same("out", got.out, want.out);
    same("lse", got.lse, want.lse);
    same("dq", got.dq, want.dq);
    same("dk", got.dk, want.dk);
    same("dv", got.dv, want.dv);
    EXPECT_TRUE(testing::close(got.out.magnitude, want.out.magnitude, {.absolute = 1e-11})) << text;
  }
}

TEST(Truth, ARowWithoutKeysIsZeroAndItsLseIsMinusInfinity) {
  const conformance::Setup setup(parse_case("bwd/mask=holes,sq=20,sk=30,d=8,dt=fp64"));
  const Truth truth = truth_of(setup.allowed, setup.in, Gradients::kYes);
  ASSERT_TRUE(truth.empty_rows[0].item<bool>());
  EXPECT_EQ(truth.out.value[0].abs().max().item<double>(), 0);
  EXPECT_EQ(truth.lse.value[0][0].item<double>(), -kInfinity);
  EXPECT_EQ(truth.dq.value[0].abs().max().item<double>(), 0);
  EXPECT_TRUE(at::isfinite(truth.dk.value).all().item<bool>());
}

// A comparison of 200 tokens, 2 heads, 16 elements, in which everything is as it should be.
class CompareTest : public ::testing::Test {
 protected:
  CompareTest() {
    at::manual_seed(3);
    const auto options = at::TensorOptions().dtype(at::kDouble);
    const at::Tensor want = at::randn({200, 2, 16}, options);
    comparison = {.name = "out",
                  .got = want.clone(),
                  .want = {want, at::full_like(want, 1e-3), at::zeros_like(want), at::zeros_like(want)},
                  .low = want + at::randn(want.sizes(), options) * 1e-5,
                  .dtype = DType::kFloat32,
                  .cap = cap_of(DType::kFloat32),
                  .empty_check = Check::kEmptyOut};
  }
  std::vector<std::string> failed() {
    CaseResult result;
    compare(comparison, result);
    text.clear();
    std::vector<std::string> checks;
    for (const Failure& failure : result.failures) {
      checks.push_back(failure.check);
      text += failure.text + "\n";
    }
    return checks;
  }
  Comparison comparison;
  std::string text;
};

TEST_F(CompareTest, TakesWhatIsAsGoodAsThePlainImplementation) {
  EXPECT_THAT(failed(), ::testing::IsEmpty());
  comparison.got = comparison.low;
  comparison.want.magnitude.fill_(1);  // the limit of fp32 is a thousandth of it
  EXPECT_THAT(failed(), ::testing::IsEmpty());
}

TEST_F(CompareTest, OneElementNamesItsPlaceAndBothValues) {
  comparison.want.magnitude.fill_(1);
  comparison.got[130][1][5] = comparison.want.value[130][1][5] + 1e-4;
  EXPECT_THAT(failed(), ::testing::ElementsAre("bound.max"));
  EXPECT_THAT(text, HasSubstr("1 of 6400 elements"));
  EXPECT_THAT(text, HasSubstr("[130, 1, 5]: got "));
}

TEST_F(CompareTest, ManySmallErrorsOfOneTileShowInTheFrobeniusBound) {
  comparison.want.magnitude.fill_(1);
  comparison.got.slice(0, 64, 128).select(1, 1).add_(4.5e-5);
  EXPECT_THAT(failed(), ::testing::ElementsAre("bound.frobenius"));
  EXPECT_THAT(text, HasSubstr("head 1, tokens [64, 128)"));
}

TEST_F(CompareTest, TheLimitHoldsWhereThePlainImplementationIsBad) {
  comparison.want.magnitude.fill_(1);
  comparison.low.add_(1);
  comparison.got.add_(0.1);
  EXPECT_THAT(failed(), ::testing::ElementsAre("bound.cap"));
}

TEST_F(CompareTest, WhatFlushingToZeroTakesIsNoErrorAndNoMoreThanThat) {
  const at::Tensor want = at::full_like(comparison.got, 1e-39);
  comparison.want = {want, want, at::zeros_like(want), at::ones_like(want)};
  comparison.low = want;
  comparison.got = at::zeros_like(want);
  EXPECT_THAT(failed(), ::testing::IsEmpty());
  comparison.got[7][0][0] = 1.4e-38;  // the smallest normal number is 1.18e-38
  EXPECT_THAT(failed(), ::testing::ElementsAre("bound.max", "bound.cap"));
  comparison.want.by_flushing.zero_();
  comparison.got = at::zeros_like(want);
  EXPECT_THAT(failed(), ::testing::ElementsAre("bound.max", "bound.cap", "bound.frobenius"));
}

// Scores of +-200: most weights are below what fp32 can hold. The plain implementation with subnormal numbers and the
// same without them.
TEST(Flushing, AnImplementationThatFlushesToZeroIsRight) {
  const conformance::Setup setup(parse_case("bwd/mask=causal,sq=129,sk=129,values=large"));
  const Truth want = truth_of(setup.allowed, setup.in, Gradients::kYes);
  const testing::PlainResult low = testing::plain_attention(setup.mask.spec, setup.in);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);  // the mode is of one thread
  ASSERT_TRUE(at::globalContext().setFlushDenormal(true));
  const testing::PlainResult got = testing::plain_attention(setup.mask.spec, setup.in);
  at::globalContext().setFlushDenormal(false);
  at::set_num_threads(threads);
  EXPECT_FALSE(at::equal(got.dk, low.dk)) << "nothing was flushed: the test says nothing";
  for (const auto& [name, tensor, truth, plain] : {std::tuple{"out", got.out, want.out, low.out},
                                                   {"dq", got.dq, want.dq, low.dq},
                                                   {"dk", got.dk, want.dk, low.dk},
                                                   {"dv", got.dv, want.dv, low.dv}}) {
    CaseResult result;
    compare({.name = name,
             .got = tensor,
             .want = truth,
             .low = plain,
             .dtype = DType::kFloat32,
             .cap = cap_of(DType::kFloat32),
             .empty_check = Check::kEmptyOut},
            result);
    EXPECT_FALSE(result.bad()) << result.failures.front().text;
  }
}

TEST_F(CompareTest, NanIsOneFinding) {
  comparison.got[7][0][0] = std::nan("");
  EXPECT_THAT(failed(), ::testing::ElementsAre("call.finite"));
  EXPECT_THAT(text, HasSubstr("[7, 0, 0]: got nan"));
}

TEST_F(CompareTest, AReferenceThatIsNotFiniteIsTheSuitesError) {
  comparison.want.value[7][0][0] = std::nan("");
  EXPECT_THAT(failed(), ::testing::ElementsAre("suite"));
}

TEST_F(CompareTest, DeclaredRowsAreComparedByEquality) {
  comparison.empty_rows = at::zeros({200}, at::kBool);
  comparison.empty_rows[7] = true;
  comparison.want.value[7].fill_(-kInfinity);
  comparison.got[7].fill_(-kInfinity);
  comparison.empty_value = -kInfinity;
  comparison.empty_check = Check::kEmptyLse;
  EXPECT_THAT(failed(), ::testing::IsEmpty());
  comparison.got[7][1][0] = -1e30;
  EXPECT_THAT(failed(), ::testing::ElementsAre("empty.lse"));
  comparison.got[7][1][0] = std::nan("");
  EXPECT_THAT(failed(), ::testing::ElementsAre("empty.lse"));
}

TEST(Record, RoundTrips) {
  CaseResult result;
  result.name = "fwd/mask=full";
  result.fail(Check::kBoundMax, "one \"two\"\nthree");
  result.fail(Check::kBoundMax, "the first text of a check is enough");
  result.seconds = 0.25;
  const std::string line = to_record(result);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const CaseResult back = from_record(line);
  EXPECT_EQ(back.name, result.name);
  EXPECT_EQ(back.status, Status::kFail);
  ASSERT_EQ(back.failures.size(), 1u);
  EXPECT_EQ(back.failures[0].check, "bound.max");
  EXPECT_EQ(back.failures[0].text, "one \"two\"\nthree");
  EXPECT_EQ(back.seconds, 0.25);
}

TEST(Record, ADeclinedCaseIsNotExecutedAndAFailureStays) {
  CaseResult result;
  result.decline({"dtype"});
  EXPECT_FALSE(result.executed());
  EXPECT_FALSE(result.bad());
  CaseResult failed;
  failed.fail(Check::kQueryReasons, "no reason");
  failed.decline({"dtype"});
  EXPECT_TRUE(failed.bad());
}

// What each rank of a case with so many ranks found.
CaseResult merged_of(const std::vector<std::vector<Failure>>& found) {
  std::vector<CaseResult> of_ranks(found.size());
  for (size_t rank = 0; rank < found.size(); ++rank) of_ranks[rank].failures = found[rank];
  return merged(parse_case("group/check=casts,cp=" + std::to_string(found.size())), of_ranks);
}

TEST(MergedRanks, PassesWhereEveryRankDid) {
  const CaseResult result = merged_of({{}, {}});
  EXPECT_EQ(result.status, Status::kPass);
  EXPECT_EQ(result.name, "group/check=casts,cp=2,seed=7");
}

TEST(MergedRanks, TheRankThatFoundSomethingIsNamedAndNotThoseItLeft) {
  const CaseResult result = merged_of({{{"group.call", "rank 1 gave up"}}, {{"group.bytes", "3 of 4 values differ"}}});
  EXPECT_EQ(result.status, Status::kFail);
  ASSERT_EQ(result.failures.size(), 1u);
  EXPECT_EQ(result.failures[0].check, "group.bytes");
  EXPECT_EQ(result.failures[0].text, "rank 1 of 2: 3 of 4 values differ");
  EXPECT_EQ(merged_of({{}, {{"group.call", "threw"}}}).failures[0].text, "rank 1 of 2: threw");
}

TEST(ProfileTest, PatternsMatchWithStars) {
  EXPECT_TRUE(matches("fwd/*,seed=*", "fwd/mask=full,seed=7"));
  EXPECT_TRUE(matches("fwd/mask=full,*values=large,*", "fwd/mask=full,sq=1,values=large,seed=7"));
  EXPECT_FALSE(matches("fwd/mask=full,*values=large,*", "fwd/mask=full,sq=1,seed=7"));
  EXPECT_FALSE(matches("fwd/*", "bwd/mask=full"));
  EXPECT_TRUE(matches("a*", "a"));
  EXPECT_FALSE(matches("a", "ab"));
}

// A pattern that nothing of the grid matches could never be met.
TEST(ProfileTest, EveryDemandIsMetByTheGridAndByNothingDeclined) {
  for (const std::string& name : profile_names()) {
    const Profile profile = find_profile(name);
    std::vector<CaseResult> results;
    for (const Family family : profile.families) {
      for (const Case& c : grid(family, {.gradients = profile.gradients})) {
        results.emplace_back();
        results.back().name = to_string(c);
      }
    }
    EXPECT_THAT(profile.unmet(results), ::testing::IsEmpty()) << name;
    for (CaseResult& result : results) result.decline({"dtype"});
    EXPECT_EQ(profile.unmet(results), profile.must) << name;
    EXPECT_EQ(profile.hash.size(), 32u);
  }
}

TEST(ProfileTest, TrainHoldsCore) {
  const Profile core = find_profile("core"), train = find_profile("train");
  for (const std::string& pattern : core.must) EXPECT_THAT(train.must, ::testing::Contains(pattern));
  EXPECT_FALSE(core.runs(Family::kBackward));
  EXPECT_TRUE(train.runs(Family::kBackward));
  EXPECT_NE(core.hash, train.hash);
  EXPECT_THROW(find_profile("trian"), Error);
}

TEST(ProfileTest, CpHoldsTrainAndAPartOfItAsksNothingElse) {
  const Profile cp = find_profile("cp");
  for (const std::string& pattern : find_profile("train").must) EXPECT_THAT(cp.must, ::testing::Contains(pattern));
  const Profile groups = cp.of_families(is_of_groups);
  EXPECT_THAT(groups.families, ::testing::ElementsAre(Family::kGroup, Family::kFaults));
  for (const std::string& pattern : groups.must) EXPECT_THAT(pattern, ::testing::MatchesRegex("(group|faults)/.*"));
  EXPECT_GT(groups.must.size(), 10u);
  EXPECT_EQ(groups.hash, cp.hash);
}

TEST(Sha256, OfTheStandardsExamples) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256(std::string(56, 'a')), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
}

TEST(ElfFactsTest, OfABuiltPlugin) {
  const ElfFacts facts = read_elf_facts(ATTNMUX_BUILD_DIR "/lib/attnmux/plugins/reference.so");
  EXPECT_THAT(facts.exports, ::testing::ElementsAre("attnmux_plugin_entry_v1"));
  EXPECT_THAT(facts.needed, ::testing::Contains("libattnmux_core.so"));
  EXPECT_THROW(read_elf_facts(ATTNMUX_SOURCE_DIR "/README.md"), Error);
}

}  // namespace
}  // namespace attnmux::conformance
