#include "attnmux/group_cast.h"

#include <gtest/gtest.h>

#include "cast_case.h"
#include "expect_error.h"

namespace attnmux::testing {
namespace {

// Published in MagiAttention's own tests (tests/test_comm, the GroupCast example).
TEST(GroupCast, PublishedCase) {
  const std::vector<std::vector<int64_t>> send{{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}};
  const std::vector<GroupCastArgs> args{{{2, 1, 1}, {{1}, {1, 2}, {2}}, {1, 1, 1}, {1, 2, 3}},
                                        {{1, 1, 2}, {{3}, {0, 3}, {2}}, {2, 2, 1, 1, 1}, {0, 2, 0, 3, 3}},
                                        {{1, 1, 2}, {{3}, {0, 3}, {1}}, {1, 1, 2, 2}, {0, 0, 1, 3}},
                                        {{1, 1, 2}, {{1}, {0, 1}, {2}}, {1, 1, 1, 1}, {1, 1, 2, 2}}};
  const std::vector<std::vector<int64_t>> receive{
      {5, 9, 13}, {0, 1, 10, 11, 2, 12, 13}, {2, 3, 6, 7, 14, 15}, {4, 5, 8, 9}};
  run_threads_group(4, {}, [&](CpGroup& group) {
    const int32_t me = group.rank();
    const at::Tensor got = group_cast(group, args[me], at::tensor(send[me], at::kLong)).wait();
    EXPECT_TRUE(at::equal(got, at::tensor(receive[me], at::kLong))) << "rank " << me << " got " << got;
    EXPECT_EQ(group.elements_sent(), args[me].tokens_sent());
    EXPECT_EQ(args[me].tokens_received(), static_cast<int64_t>(receive[me].size()));
  });
}

TEST(GroupCast, StridedInputAndOneRank) {
  const GroupCastArgs args{{1, 2}, {{}, {0}}, {2}, {0}};
  const std::shared_ptr<CpGroup> group = single_rank_group();
  const at::Tensor input = at::arange(12, at::kFloat).view({4, 3}).t();  // [3, 4], stride 1 in tokens
  const at::Tensor got = group_cast(*group, args, input).wait();
  EXPECT_TRUE(at::equal(got, input.narrow(0, 1, 2)));
  at::Tensor sum = at::ones({3, 4}, at::kFloat);
  group_reduce(*group, args, got.t().contiguous().t()).wait_and_add(sum);
  at::Tensor expected = at::ones({3, 4}, at::kFloat);
  expected.narrow(0, 1, 2).add_(got);
  EXPECT_TRUE(at::equal(sum, expected));
  EXPECT_EQ(group->elements_sent(), 0);
}

// 1 + 2^-8 and then 2^-8 more are lost in bf16 one by one, not together.
TEST(GroupReduce, SumsOfReducedTypesAreMadeInFloat) {
  constexpr double kSmall = 1.0 / 256;
  for (const at::ScalarType into : {at::kBFloat16, at::kFloat}) {
    run_threads_group(3, {}, [&](CpGroup& group) {
      const bool owner = group.rank() == 0;
      const GroupCastArgs args = owner ? GroupCastArgs{{1}, {{1, 2}}, {}, {}} : GroupCastArgs{{}, {}, {1}, {0}};
      const at::Tensor input = owner ? at::empty({0}, at::kBFloat16) : at::full({1}, kSmall, at::kBFloat16);
      GroupReduceResult result = group_reduce(group, args, input);
      at::Tensor sum = owner ? at::ones({1}, into) : at::empty({0}, into);
      result.wait_and_add(sum);
      EXPECT_TRUE(!owner || sum.item<double>() == 1 + 2 * kSmall) << sum;
    });
  }
}

TEST(GroupReduce, ASecondWaitIsAnError) {
  const std::shared_ptr<CpGroup> group = single_rank_group();
  const GroupCastArgs args{{1}, {{0}}, {1}, {0}};
  GroupCastResult cast = group_cast(*group, args, at::ones({1}));
  GroupReduceResult reduce = group_reduce(*group, args, cast.wait());
  expect_error(ErrorCode::kInvalidArgument, {"group_cast", "once"}, [&] { cast.wait(); });
  at::Tensor sum = at::zeros({1});
  reduce.wait_and_add(sum);
  expect_error(ErrorCode::kInvalidArgument, {"group_reduce", "once"}, [&] { reduce.wait_and_add(sum); });
}

struct BadArgs {
  const char* name;
  GroupCastArgs args;
  const char* text;
};

class BadArgsTest : public ::testing::TestWithParam<BadArgs> {};

TEST_P(BadArgsTest, AreRefused) {
  const std::shared_ptr<CpGroup> group = single_rank_group();
  expect_error(ErrorCode::kInvalidArgument, {GetParam().text},
               [&] { group_cast(*group, GetParam().args, at::ones({3})); });
}

INSTANTIATE_TEST_SUITE_P(
    Cases, BadArgsTest,
    ::testing::Values(BadArgs{"lists_of_other_lengths", {{3}, {}, {}, {}}, "1 input splits with 0 lists"},
                      BadArgs{"unknown_destination", {{3}, {{1}}, {}, {}}, "rank 1 in a group of 1"},
                      BadArgs{"unknown_source", {{3}, {{}}, {2}, {-1}}, "rank -1 in a group of 1"},
                      BadArgs{"destinations_twice", {{3}, {{0, 0}}, {}, {}}, "do not ascend"},
                      BadArgs{"negative_piece", {{4, -1}, {{}, {}}, {}, {}}, "a piece of -1 tokens"},
                      BadArgs{
                          "sent_and_not_received", {{3}, {{0}}, {}, {}}, "sends itself 3 Float and expects nothing"},
                      BadArgs{"another_total", {{2}, {{}}, {}, {}}, "add up to 2 tokens, the tensor has 3"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux::testing
