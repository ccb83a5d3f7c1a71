#include "attnmux/spelling.h"

#include <gtest/gtest.h>

namespace attnmux {
namespace {

const std::vector<std::string> kMasks = {"full", "causal", "varlen", "varlen-full", "window", "prefix-lm"};

struct NearestCase {
  std::string name;
  std::string word;
  std::string expected;
};

class Nearest : public testing::TestWithParam<NearestCase> {};

TEST_P(Nearest, FindsTheClosestOrNothing) { EXPECT_EQ(nearest(GetParam().word, kMasks), GetParam().expected); }

INSTANTIATE_TEST_SUITE_P(Words, Nearest,
                         testing::Values(NearestCase{"missing_letter", "windw", "window"},
                                         NearestCase{"swapped_letters", "casual", "causal"},
                                         NearestCase{"case_is_free", "CAUSAL", "causal"},
                                         NearestCase{"underscore_is_free", "varlen_full", "varlen-full"},
                                         NearestCase{"extra_letter", "fulll", "full"},
                                         NearestCase{"other_word", "zebra", ""}, NearestCase{"empty", "", ""},
                                         NearestCase{"hostile_length", std::string(100000, 'f'), ""}),
                         [](const auto& info) { return info.param.name; });

TEST(UnknownWord, NamesTheWordTheSuggestionAndWhatIsKnown) {
  EXPECT_EQ(unknown_word("mask", "fulll", {"full", "causal"}),
            "unknown mask \"fulll\"; did you mean \"full\"? Known: full, causal");
  EXPECT_EQ(unknown_word("key", "zzz", {"full"}), "unknown key \"zzz\". Known: full");
}

}  // namespace
}  // namespace attnmux
