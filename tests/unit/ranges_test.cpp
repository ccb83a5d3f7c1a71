#include "attnmux/ranges.h"

#include <gtest/gtest.h>

#include "../common/print_range.h"
#include "expect_error.h"
#include "published_masks.h"

namespace attnmux {
namespace {

using Ranges = std::vector<Range>;

TEST(Ranges, PublishedCases) {
  int checked = 0;
  for (const nlohmann::json& json : published_cases()["ranges"]) {
    if (json["op"] == "localise") {
      EXPECT_EQ(localise(published_ranges(json["inner"]), published_ranges(json["outer"])),
                published_ranges(json["expect"]));
    } else {
      ASSERT_EQ(json["op"], "difference");
      EXPECT_EQ(subtract(published_ranges(json["a"]), published_ranges(json["b"])), published_ranges(json["expect"]));
    }
    ++checked;
  }
  EXPECT_EQ(checked, 2);
}

TEST(Ranges, UniteSortsAndJoinsWhatTouches) {
  EXPECT_EQ(unite({{30, 40}, {8, 20}, {5, 5}, {0, 10}, {20, 21}, {33, 35}}), (Ranges{{0, 21}, {30, 40}}));
  EXPECT_EQ(unite({{7, 7}}), Ranges());
  EXPECT_EQ(unite({}), Ranges());
}

TEST(Ranges, IntersectKeepsWhatBothHave) {
  EXPECT_EQ(intersect({{0, 10}, {20, 30}}, {{5, 22}, {25, 26}, {29, 40}}),
            (Ranges{{5, 10}, {20, 22}, {25, 26}, {29, 30}}));
  EXPECT_EQ(intersect({{0, 10}}, {{10, 20}}), Ranges());
}

TEST(Ranges, SubtractWithAHoleOverSeveralRanges) {
  EXPECT_EQ(subtract({{0, 10}, {12, 14}, {16, 30}}, {{2, 3}, {5, 20}, {22, 23}}),
            (Ranges{{0, 2}, {3, 5}, {20, 22}, {23, 30}}));
  EXPECT_EQ(subtract({{0, 10}}, {}), (Ranges{{0, 10}}));
  EXPECT_EQ(subtract({{3, 4}}, {{0, 10}}), Ranges());
}

TEST(Ranges, LocaliseNamesATokenThatIsMissing) {
  EXPECT_EQ(localise({{25, 27}, {0, 1}, {9, 9}}, {{0, 5}, {20, 30}}), (Ranges{{10, 12}, {0, 1}, {0, 0}}));
  expect_error(ErrorCode::kInvalidArgument, {"token 5 of [3, 21)"}, [] { localise({{3, 21}}, {{0, 5}, {20, 30}}); });
  expect_error(ErrorCode::kInvalidArgument, {"token 30 of [30, 31)"}, [] { localise({{30, 31}}, {{0, 5}, {20, 30}}); });
}

}  // namespace
}  // namespace attnmux
