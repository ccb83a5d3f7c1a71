#include "attnmux/mask.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "attnmux/mask_builders.h"
#include "attnmux/mask_family.h"
#include "attnmux/mask_window.h"
#include "expect_error.h"
#include "published_masks.h"

namespace attnmux {
namespace {

constexpr MaskType kFull = MaskType::kFull;
constexpr MaskType kCausal = MaskType::kCausal;
constexpr MaskType kInvCausal = MaskType::kInvCausal;
constexpr MaskType kBiCausal = MaskType::kBiCausal;

// One row of '#' and '.' for each query.
std::string picture(const AttnMaskSpec& mask) {
  std::string text;
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    for (int64_t k = 0; k < mask.total_k(); ++k) text += mask.allowed(q, k) ? '#' : '.';
    text += '\n';
  }
  return text;
}

struct SliceCase {
  std::string name;
  AttnSlice slice;
  std::string picture;
};

class SliceTypes : public testing::TestWithParam<SliceCase> {};

TEST_P(SliceTypes, AttendWhatTheDefinitionSays) {
  const AttnMaskSpec mask({GetParam().slice}, GetParam().slice.q.end, GetParam().slice.k.end);
  EXPECT_EQ(picture(mask), GetParam().picture);
  EXPECT_EQ(mask.area(), std::count(GetParam().picture.begin(), GetParam().picture.end(), '#'));
  EXPECT_EQ(area(GetParam().slice), mask.area());
}

INSTANTIATE_TEST_SUITE_P(
    Mask, SliceTypes,
    testing::Values(SliceCase{"full", {{0, 2}, {0, 3}, kFull}, "###\n###\n"},
                    SliceCase{"causal_square", {{0, 3}, {0, 3}, kCausal}, "#..\n##.\n###\n"},
                    SliceCase{"causal_wide_ends_bottom_right", {{0, 2}, {0, 4}, kCausal}, "###.\n####\n"},
                    SliceCase{"causal_tall_starts_late", {{0, 4}, {0, 2}, kCausal}, "..\n..\n#.\n##\n"},
                    SliceCase{"inv_causal_square", {{0, 3}, {0, 3}, kInvCausal}, "###\n.##\n..#\n"},
                    SliceCase{"inv_causal_wide_starts_top_left", {{0, 2}, {0, 4}, kInvCausal}, "####\n.###\n"},
                    SliceCase{"inv_causal_tall_ends_early", {{0, 4}, {0, 2}, kInvCausal}, "##\n.#\n..\n..\n"},
                    SliceCase{"bi_causal_square_is_a_diagonal", {{0, 3}, {0, 3}, kBiCausal}, "#..\n.#.\n..#\n"},
                    SliceCase{"bi_causal_wide_is_a_band", {{0, 3}, {0, 4}, kBiCausal}, "##..\n.##.\n..##\n"},
                    SliceCase{"bi_causal_tall_is_empty", {{0, 3}, {0, 2}, kBiCausal}, "..\n..\n..\n"},
                    SliceCase{"offset", {{1, 3}, {2, 4}, kCausal}, "....\n..#.\n..##\n"}),
    [](const auto& info) { return info.param.name; });

TEST(Mask, AreaOfASliceNeedsNoMask) {
  EXPECT_EQ(area({{5, 2}, {0, 4}, kFull}), 0);
  const int64_t longest = (int64_t{1} << 31) - 1;
  EXPECT_EQ(area({{0, longest}, {0, longest}, kFull}), longest * longest);
  EXPECT_EQ(area({{0, longest}, {0, longest}, kCausal}), longest * (longest + 1) / 2);
  expect_error(ErrorCode::kInvalidArgument, {"q = [0, 2147483648)"}, [&] { area({{0, longest + 1}, {0, 1}, kFull}); });
  expect_error(ErrorCode::kInvalidArgument, {"k = ["}, [&] { area({{0, 1}, {INT64_MIN, INT64_MAX}, kFull}); });
}

TEST(Mask, LargestTotalsKeepTheirArea) {
  const int64_t longest = (int64_t{1} << 31) - 1;
  EXPECT_EQ(full_mask(longest, longest).area(), longest * longest);
  const AttnMaskSpec causal = causal_mask(longest, longest);
  EXPECT_EQ(causal.area(), longest * (longest + 1) / 2);
  EXPECT_EQ(causal.area({longest - 1, longest}), longest);
  EXPECT_EQ(causal.area({0, 2}), 3);
}

TEST(Mask, PublishedAreas) {
  const nlohmann::json& document = published_cases();
  ASSERT_FALSE(document["area"].empty());
  for (const nlohmann::json& json : document["area"]) {
    EXPECT_EQ(area(published_slice(json["slice"])), json["area"].get<int64_t>()) << json.dump();
  }
}

TEST(Mask, PublishedChunkAreas) {
  const nlohmann::json& document = published_cases();
  int checked = 0;
  for (const nlohmann::json& json : document["dispatch"]) {
    const int64_t total = json["total"];
    const int64_t chunk = json["chunk"];
    const AttnMaskSpec mask = published_mask(json);
    EXPECT_TRUE(mask.overlaps().empty()) << json["name"];
    if (!json.contains("chunk_area")) continue;
    int64_t begin = 0;
    for (const int64_t expected : json["chunk_area"].get<std::vector<int64_t>>()) {
      EXPECT_EQ(mask.area({begin, begin + chunk}), expected) << json["name"] << " from query " << begin;
      begin += chunk;
      ++checked;
    }
    EXPECT_EQ(begin, total) << json["name"];
  }
  EXPECT_EQ(checked, 12);
}

TEST(Mask, RefusesSlicesByIndexAndValue) {
  expect_error(ErrorCode::kInvalidArgument, {"slice 1: q = [4, 2) is inverted"}, [&] {
    AttnMaskSpec({{{0, 4}, {0, 4}, kFull}, {{4, 2}, {0, 4}, kFull}}, 8, 8);
  });
  expect_error(ErrorCode::kInvalidArgument, {"slice 0: q = [0, 9) is outside [0, 8)"}, [&] {
    AttnMaskSpec({{{0, 9}, {0, 4}, kFull}}, 8, 8);
  });
  expect_error(ErrorCode::kInvalidArgument, {"slice 0: k = [-1, 4) is outside [0, 8)"}, [&] {
    AttnMaskSpec({{{0, 8}, {-1, 4}, kFull}}, 8, 8);
  });
  expect_error(ErrorCode::kInvalidArgument, {"slice 0: type 7 is not in 0..3"}, [&] {
    AttnMaskSpec({{{0, 8}, {0, 4}, static_cast<MaskType>(7)}}, 8, 8);
  });
  // All of them at once, but not a million lines.
  expect_error(ErrorCode::kInvalidArgument, {"and 92 more"}, [&] {
    AttnMaskSpec(std::vector<AttnSlice>(100, {{0, 9}, {0, 4}, kFull}), 8, 8);
  });
}

TEST(Mask, RefusesTotalsOutsideTheirRange) {
  expect_error(ErrorCode::kInvalidArgument, {"total_q = -1 is outside [0, 2147483647]"},
               [&] { AttnMaskSpec({}, -1, 4); });
  expect_error(ErrorCode::kInvalidArgument, {"total_k = 2147483648"}, [&] { AttnMaskSpec({}, 4, int64_t{1} << 31); });
}

TEST(Mask, RefusesRowsOutsideTheMask) {
  const AttnMaskSpec mask = causal_mask(4, 4);
  expect_error(ErrorCode::kInvalidArgument, {"rows [0, 5)"}, [&] { mask.area({0, 5}); });
  expect_error(ErrorCode::kInvalidArgument, {"rows [3, 2)"}, [&] { mask.area({3, 2}); });
  expect_error(ErrorCode::kInvalidArgument, {"rows [-1, 2)"}, [&] { mask.area({-1, 2}); });
  EXPECT_EQ(mask.area({2, 2}), 0);
}

TEST(Mask, OutsideTheMaskNothingIsAttended) {
  const AttnMaskSpec mask = full_mask(4, 4);
  EXPECT_FALSE(mask.allowed(-1, 0));
  EXPECT_FALSE(mask.allowed(4, 0));
  EXPECT_FALSE(mask.allowed(0, 4));
  EXPECT_TRUE(mask.keys_of_row(4).empty());
}

TEST(Mask, EmptyMasksAreMasks) {
  const AttnMaskSpec none({}, 3, 5);
  EXPECT_EQ(none.area(), 0);
  EXPECT_TRUE(none.keys_of_row(1).empty());
  EXPECT_TRUE(none.overlaps().empty());
  EXPECT_EQ(AttnMaskSpec({}, 0, 0).area(), 0);
  EXPECT_NE(none, AttnMaskSpec({}, 5, 3));
  EXPECT_EQ(none, AttnMaskSpec({{{1, 1}, {0, 5}, kFull}, {{0, 3}, {0, 1}, kBiCausal}}, 3, 5));
}

TEST(Mask, KeepsItsSlicesAndDropsEmptyOnes) {
  const AttnMaskSpec mask({{{2, 4}, {0, 4}, kFull}, {{1, 1}, {0, 4}, kFull}, {{0, 2}, {0, 2}, kCausal}}, 4, 4);
  const std::vector<AttnSlice> expected = {{{2, 4}, {0, 4}, kFull}, {{0, 2}, {0, 2}, kCausal}};
  EXPECT_EQ(mask.slices(), expected);
}

TEST(Mask, CanonicalFormDoesNotDependOnTheCut) {
  const AttnMaskSpec whole = causal_mask(6, 6);
  const AttnMaskSpec cut({{{3, 6}, {0, 3}, kFull}, {{3, 6}, {3, 6}, kCausal}, {{0, 3}, {0, 3}, kCausal}}, 6, 6);
  EXPECT_EQ(cut.disjoint_slices(), whole.disjoint_slices());
  EXPECT_EQ(cut.hash(), whole.hash());
  EXPECT_EQ(whole.disjoint_slices(), (std::vector<AttnSlice>{{{0, 6}, {0, 6}, kCausal}}));
  // Row by row.
  std::vector<AttnSlice> rows;
  for (int64_t q = 0; q < 6; ++q) rows.push_back({{q, q + 1}, {0, q + 1}, kInvCausal});
  EXPECT_EQ(AttnMaskSpec(rows, 6, 6), whole);
}

TEST(Mask, HashIsTheSameOnEveryMachine) {
  // Plans and caches are keyed by it; a change here invalidates what others have stored.
  EXPECT_EQ(to_string(causal_mask(4, 4).hash()), "7d0d115f7e3aa2ee3521ecd029d1f167");
  EXPECT_EQ(to_string(varlen_mask({3, 5}, kFull).hash()), "662112601fc903e92eb8fe0720b7f81c");
}

TEST(Mask, OverlapsNameBothSlices) {
  const AttnMaskSpec mask({{{0, 4}, {0, 4}, kFull}, {{4, 8}, {0, 8}, kFull}, {{3, 5}, {2, 3}, kFull}}, 8, 8);
  const std::vector<std::string> lines = mask.overlaps();
  ASSERT_EQ(lines.size(), 1u);  // slice 2 overlaps both; it is named once
  EXPECT_EQ(lines[0], "slices 0 (q = [0, 4), k = [0, 4)) and 2 (q = [3, 5), k = [2, 3)) overlap");
  EXPECT_EQ(mask.area(), 16 + 32);
}

// A lattice of 2200 x 2200 crossing slices has 4.8 * 10^6 pieces: refused, not computed until memory ends.
TEST(Mask, RefusesLattices) {
  std::vector<AttnSlice> slices;
  const int64_t total = int64_t{1} << 20;
  for (int64_t i = 0; i < 2200; ++i) {
    slices.push_back({{0, total}, {400 * i, 400 * i + 200}, kFull});
    slices.push_back({{400 * i, 400 * i + 200}, {0, total}, kFull});
  }
  expect_error(ErrorCode::kInvalidArgument, {"4194304 disjoint pieces"}, [&] { AttnMaskSpec(slices, total, total); });
}

// 100000 slices that all cross, cover and repeat one another: a quadratic algorithm would not come back.
TEST(Mask, ManyOverlappingSlices) {
  const int64_t total = int64_t{1} << 20;
  std::mt19937_64 random(1);
  const auto range = [&] {
    const auto a = static_cast<int64_t>(random() % total);
    const auto b = static_cast<int64_t>(random() % total);
    return Range{std::min(a, b), std::max(a, b)};
  };
  std::vector<AttnSlice> slices(100000, {{0, total / 2}, {0, total}, kCausal});
  for (size_t i = 50000; i < slices.size(); ++i) slices[i] = {range(), range(), static_cast<MaskType>(random() % 4)};
  const AttnMaskSpec mask(slices, total, total);
  EXPECT_GT(mask.area(), total * (total - 10000));
  EXPECT_EQ(mask.overlaps().size(), 16u);
  for (int i = 0; i < 200; ++i) {
    const auto q = static_cast<int64_t>(random() % total);
    const auto k = static_cast<int64_t>(random() % total);
    bool expected = false;
    for (const AttnSlice& slice : slices) {
      const Range keys = keys_of_row(slice, q);
      expected = expected || (k >= keys.begin && k < keys.end);
    }
    EXPECT_EQ(mask.allowed(q, k), expected) << q << ", " << k;
  }
}

TEST(PrefixTree, GivesEachSampleItsRanges) {
  const PrefixTree tree = prefix_tree({4, 2, 3}, {{0, 1}, {0, 2}});
  EXPECT_EQ(picture(tree.mask),
            "#........\n##.......\n###......\n####.....\n"
            "#####....\n######...\n"
            "####..#..\n####..##.\n####..###\n");
  EXPECT_EQ(tree.sample_ranges, (std::vector<std::vector<Range>>{{{0, 4}, {4, 6}}, {{0, 4}, {6, 9}}}));
}

// A chain packed in order is one causal text: its slices must not grow with the square of its depth.
TEST(PrefixTree, DeepChainsStaySmall) {
  std::vector<int64_t> path(5000);
  std::iota(path.begin(), path.end(), 0);
  const PrefixTree tree = prefix_tree(std::vector<int64_t>(5000, 3), {path});
  EXPECT_EQ(tree.mask.slices().size(), 5000u);
  EXPECT_EQ(tree.mask, causal_mask(15000, 15000));
}

TEST(PrefixTree, RefusesWhatIsNoForest) {
  const auto refused = [](const std::vector<std::vector<int64_t>>& paths, const std::string& part) {
    expect_error(ErrorCode::kInvalidArgument, {part}, [&] { prefix_tree({1, 1, 1}, paths); });
  };
  refused({{0, 1, 2}, {1, 2}}, "node 1 follows node 0 in sample_paths[0], but is a root in sample_paths[1]");
  refused({{0, 1}, {2, 1}}, "node 1 follows node 0 in sample_paths[0], but follows node 2 in sample_paths[1]");
  refused({{0, 1, 0}}, "node 0 is a root in sample_paths[0], but follows node 1");
  refused({{0, 1}}, "node 2 lies on no path");
  refused({{0, 1, 3}}, "sample_paths[0] names node 3; there are nodes 0 to 2");
  refused({{0, 1, -1}}, "sample_paths[0] names node -1");
  refused({{0, 1, 2}, {}}, "sample_paths[1] is empty");
}

struct FamilyCase {
  std::string name;
  AttnMaskSpec mask;
  MaskFamily family;
};

class Classify : public testing::TestWithParam<FamilyCase> {};

TEST_P(Classify, FindsTheNarrowestFamily) {
  EXPECT_EQ(to_string(classify(GetParam().mask)), to_string(GetParam().family));
}

INSTANTIATE_TEST_SUITE_P(
    Mask, Classify,
    testing::Values(
        FamilyCase{"full", full_mask(4, 6), MaskFamily::kFull},
        FamilyCase{"nothing_at_all", full_mask(0, 0), MaskFamily::kFull},
        FamilyCase{"one_query", causal_mask(1, 6), MaskFamily::kFull},
        FamilyCase{"causal", causal_mask(6, 6), MaskFamily::kCausal},
        FamilyCase{"causal_in_parts", AttnMaskSpec({{{0, 3}, {0, 3}, kCausal}, {{3, 6}, {0, 6}, kCausal}}, 6, 6),
                   MaskFamily::kCausal},
        FamilyCase{"causal_more_keys", causal_mask(3, 6), MaskFamily::kCausal},
        FamilyCase{"causal_more_queries", causal_mask(6, 3), MaskFamily::kCausal},
        FamilyCase{"varlen_full", varlen_mask({3, 1, 1, 2}, kFull), MaskFamily::kVarlenFull},
        FamilyCase{"tokens_alone", varlen_mask({1, 1, 1, 1}, kCausal), MaskFamily::kVarlenFull},
        FamilyCase{"varlen_causal", varlen_mask({3, 1, 1, 4}, kCausal), MaskFamily::kVarlenCausal},
        FamilyCase{"varlen_other_key_lengths",
                   AttnMaskSpec({{{0, 2}, {0, 5}, kCausal}, {{2, 6}, {5, 7}, kCausal}}, 6, 7),
                   MaskFamily::kVarlenCausal},
        FamilyCase{"chunked", chunked_local_mask(10, 4), MaskFamily::kVarlenCausal},
        FamilyCase{"window", sliding_window_mask({12}, {.left = 3, .right = 0}), MaskFamily::kSlidingWindow},
        FamilyCase{"windows", sliding_window_mask({12, 2, 9}, {.left = 3, .right = 1}), MaskFamily::kSlidingWindow},
        FamilyCase{"two_windows_of_different_width",
                   AttnMaskSpec({{{0, 6}, {0, 8}, kBiCausal}, {{6, 12}, {8, 14}, kCausal}}, 12, 14),
                   MaskFamily::kArbitrary},
        FamilyCase{"sinks", sliding_window_mask({12}, {.left = 3, .right = 0, .sink_tokens = 1}),
                   MaskFamily::kArbitrary},
        FamilyCase{"gap_in_keys", AttnMaskSpec({{{0, 2}, {0, 2}, kFull}, {{2, 4}, {3, 4}, kFull}}, 4, 4),
                   MaskFamily::kArbitrary},
        FamilyCase{"nothing_attended", AttnMaskSpec({}, 4, 4), MaskFamily::kArbitrary},
        FamilyCase{"prefix_lm", prefix_lm_mask({{3, 4}}), MaskFamily::kArbitrary}),
    [](const auto& info) { return info.param.name; });

TEST(MaskFamily, PackedDocumentsSpeakTheTermsOfKernels) {
  const auto documents = packed_documents(sliding_window_mask({5, 3, 9}, {.left = 2, .right = 1}));
  ASSERT_TRUE(documents.has_value());
  EXPECT_EQ(documents->cu_seqlens_q, (std::vector<int64_t>{0, 5, 8, 17}));
  EXPECT_EQ(documents->cu_seqlens_k, documents->cu_seqlens_q);
  EXPECT_EQ(documents->left, 2);
  EXPECT_EQ(documents->right, 1);
  EXPECT_FALSE(packed_documents(prefix_lm_mask({{3, 4}})).has_value());
}

TEST(MaskFamily, SetsCoverWhatTheirMembersContain) {
  const MaskFamilySet varlen = {MaskFamily::kVarlenCausal};
  EXPECT_TRUE(varlen.covers(MaskFamily::kCausal));
  EXPECT_TRUE(varlen.covers(MaskFamily::kVarlenCausal));
  EXPECT_FALSE(varlen.covers(MaskFamily::kFull));
  EXPECT_FALSE(varlen.covers(MaskFamily::kSlidingWindow));
  EXPECT_TRUE(MaskFamilySet{MaskFamily::kArbitrary}.covers(MaskFamily::kSlidingWindow));
  EXPECT_FALSE(MaskFamilySet().covers(MaskFamily::kFull));
  EXPECT_EQ((MaskFamilySet{MaskFamily::kCausal, MaskFamily::kFull}).to_string(), "full, causal");
}

TEST(MaskWindow, LeavesTheKeysThatTheDefinitionSays) {
  std::mt19937 random(7);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  for (int round = 0; round < 200; ++round) {
    const int64_t total = draw(1, 24);
    std::vector<AttnSlice> slices;
    for (int64_t i = draw(1, 4); i > 0; --i) {
      const int64_t q = draw(0, total), k = draw(0, total);
      slices.push_back({{q, draw(q, total)}, {k, draw(k, total)}, static_cast<MaskType>(draw(0, 3))});
    }
    const AttnMaskSpec whole(slices, total, total);
    const int64_t window = draw(1, total + 1);
    const AttnMaskSpec left = within_window(whole, window);
    for (int64_t q = 0; q < total; ++q) {
      for (int64_t k = 0; k < total; ++k) {
        ASSERT_EQ(left.allowed(q, k), whole.allowed(q, k) && k > q - window) << picture(whole) << "window " << window;
      }
    }
    EXPECT_TRUE(within_window(MaskFamilySet{classify(whole)}).covers(classify(left))) << picture(left);
  }
}

TEST(MaskWindow, OfDocumentsIsTheBuildersWindow) {
  EXPECT_EQ(within_window(varlen_mask({11, 1, 23, 7}, kCausal), 6),
            sliding_window_mask({11, 1, 23, 7}, {.left = 5, .right = 0}));
  EXPECT_EQ(within_window(varlen_mask({11, 4}, kCausal), 11), varlen_mask({11, 4}, kCausal));
}

TEST(MaskWindow, BadInputIsRefused) {
  expect_error(ErrorCode::kInvalidArgument, {"window of 0"}, [] { within_window(causal_mask(3, 3), 0); });
  expect_error(ErrorCode::kInvalidArgument, {"2 x 3"}, [] { within_window(causal_mask(2, 3), 2); });
}

}  // namespace
}  // namespace attnmux
