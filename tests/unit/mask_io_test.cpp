#include "attnmux/mask_io.h"

#include <gtest/gtest.h>

#include "attnmux/mask_builders.h"
#include "expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

struct TextCase {
  std::string name;
  std::string text;
  AttnMaskSpec mask;
};

class MaskText : public testing::TestWithParam<TextCase> {};

TEST_P(MaskText, IsTheMaskItNames) { EXPECT_EQ(parse_mask(GetParam().text), GetParam().mask); }

INSTANTIATE_TEST_SUITE_P(
    Forms, MaskText,
    testing::Values(
        TextCase{"full", "full:7", full_mask(7, 7)}, TextCase{"full_cross", "full:3x9", full_mask(3, 9)},
        TextCase{"causal", "causal:7", causal_mask(7, 7)}, TextCase{"causal_cross", "causal:3x9", causal_mask(3, 9)},
        TextCase{"varlen", "varlen:3,1,4", varlen_mask({3, 1, 4}, MaskType::kCausal)},
        TextCase{"varlen_one", "varlen:8", varlen_mask({8}, MaskType::kCausal)},
        TextCase{"varlen_full", "varlen-full:3,4", varlen_mask({3, 4}, MaskType::kFull)},
        TextCase{"window", "window:20,left=3,right=1", sliding_window_mask({20}, {.left = 3, .right = 1})},
        TextCase{"window_any_order", "window:20,right=1,left=3", sliding_window_mask({20}, {.left = 3, .right = 1})},
        TextCase{"window_unbounded", "window:20,left=-1,right=2", sliding_window_mask({20}, {.left = -1, .right = 2})},
        TextCase{"window_sink", "window:20,left=3,right=0,sink=2",
                 sliding_window_mask({20}, {.left = 3, .right = 0, .sink_tokens = 2})},
        TextCase{"prefix_lm", "prefix-lm:4+6,2+0", prefix_lm_mask({{4, 6}, {2, 0}})},
        TextCase{"block_causal", "block-causal:4,4,2", block_causal_mask({4, 4, 2})},
        TextCase{"chunked", "chunked:10,chunk=4", chunked_local_mask(10, 4)},
        TextCase{"spans", "bidirectional-spans:20,2-5,9-14", bidirectional_spans_mask(20, {{2, 5}, {9, 14}})},
        TextCase{"no_spans", "bidirectional-spans:20", causal_mask(20, 20)}),
    [](const auto& info) { return info.param.name; });

struct BadTextCase {
  std::string name;
  std::string text;
  std::string part;
};

class BadMaskText : public testing::TestWithParam<BadTextCase> {};

TEST_P(BadMaskText, IsAUsageErrorThatSaysWhy) {
  expect_error(ErrorCode::kUsage, {GetParam().part}, [] { parse_mask(GetParam().text); });
}

INSTANTIATE_TEST_SUITE_P(
    Forms, BadMaskText,
    testing::Values(
        BadTextCase{"misspelt", "caussal:10", "did you mean \"causal\"?"},
        BadTextCase{"unknown", "zebra:10", "Known: full, causal, varlen"},
        BadTextCase{"empty", "", "unknown mask \"\""}, BadTextCase{"no_size", "causal", "write causal:N or causal:QxK"},
        BadTextCase{"empty_size", "causal:", "\"\" is not an integer"},
        BadTextCase{"tree_of_no_file", "tree:", "mask \"tree:\": no file is named; write tree:FILE.json"},
        BadTextCase{"fraction", "causal:1.5", "\"1.5\" is not an integer"},
        BadTextCase{"space", "causal: 5", "\" 5\" is not an integer"},
        BadTextCase{"plus", "causal:+5", "\"+5\" is not an integer"},
        BadTextCase{"three_sides", "full:3x4x5", "\"3x4x5\" is not two integers"},
        BadTextCase{"beyond_int64", "causal:9223372036854775808", "\"9223372036854775808\" does not fit into 64 bits"},
        BadTextCase{"beyond_the_largest_total", "causal:2147483648", "outside [0, 2147483647]"},
        BadTextCase{"negative", "full:-3", "-3 is negative"},
        BadTextCase{"negative_document", "varlen:3,-1", "seqlens[1] = -1 is negative"},
        BadTextCase{"too_many_tokens", "varlen:2147483647,1", "add up to more than 2147483647 tokens"},
        BadTextCase{"trailing_comma", "varlen:3,", "\"\" is not an integer"},
        BadTextCase{"window_key", "window:10,lefft=1,right=0", "unknown key \"lefft\"; did you mean \"left\"?"},
        BadTextCase{"window_missing_key", "window:10,left=1", "key \"right\" is missing"},
        BadTextCase{"window_repeated_key", "window:10,left=1,left=2,right=0", "key \"left\" appears twice"},
        BadTextCase{"window_no_value", "window:10,left,right=0", "\"left\" is not key=integer"},
        BadTextCase{"window_below_unbounded", "window:10,left=-2,right=0", "left = -2 is below -1"},
        BadTextCase{"window_negative_sink", "window:10,left=1,right=0,sink=-1", "sink_tokens = -1 is negative"},
        BadTextCase{"prefix_without_plus", "prefix-lm:100", "\"100\" is not two integers with \"+\" between them"},
        BadTextCase{"chunk_of_zero", "chunked:10,chunk=0", "chunk = 0 is not positive"},
        BadTextCase{"too_many_chunks", "chunked:2147483647,chunk=1", "more than 4194304 chunks"},
        BadTextCase{"span_outside", "bidirectional-spans:20,5-25", "spans[0] = [5, 25)"},
        BadTextCase{"spans_overlap", "bidirectional-spans:20,5-9,8-12", "spans[1] = [8, 12)"},
        BadTextCase{"span_inverted", "bidirectional-spans:20,9-5", "spans[0] = [9, 5) is inverted"},
        BadTextCase{"long_text_is_cut_short", "causal:" + std::string(100000, '7'), "7...\""}),
    [](const auto& info) { return info.param.name; });

TEST(MaskFile, IsReadByItsEnding) {
  const TempDir folder;
  const std::string path = folder.write("mask.json", mask_to_json(causal_mask(5, 9)));
  EXPECT_EQ(parse_mask(path), causal_mask(5, 9));
}

TEST(MaskFile, TreeIsReadFromItsNodesAndPaths) {
  const TempDir folder;
  const std::string path =
      folder.write("tree.json", R"({"node_lengths": [6, 3, 2], "sample_paths": [[0, 1], [0, 2]]})");
  EXPECT_EQ(parse_mask("tree:" + path), prefix_tree({6, 3, 2}, {{0, 1}, {0, 2}}).mask);
}

TEST(MaskFile, ErrorsNameTheFile) {
  const TempDir folder;
  expect_error(ErrorCode::kBadFile,
               {folder.file("none.json"), "No such file", "a form such as causal:4096", "FILE.json"},
               [&] { parse_mask(folder.file("none.json")); });
  expect_error(ErrorCode::kBadFile, {"is a folder"}, [&] { parse_mask("tree:" + folder.path()); });
  const std::string broken = folder.write("broken.json", "{\n\"total_q\": 4,,");
  expect_error(ErrorCode::kConfig, {broken, "not JSON", "line 2, column 14"}, [&] { parse_mask(broken); });
  const std::string tree = folder.write("tree.json", R"({"node_lengths": [6], "sample_paths": [[0, 1]]})");
  expect_error(ErrorCode::kConfig, {tree, "sample_paths[0] names node 1; there are nodes 0 to 0"},
               [&] { parse_mask("tree:" + tree); });
}

struct BadJsonCase {
  std::string name;
  std::string json;
  std::string part;
};

class BadMaskJson : public testing::TestWithParam<BadJsonCase> {};

TEST_P(BadMaskJson, IsAConfigErrorThatNamesThePlace) {
  expect_error(ErrorCode::kConfig, {GetParam().part}, [] { mask_from_json(GetParam().json); });
}

std::string with_slice(const std::string& slice) {
  return R"({"total_q": 8, "total_k": 8, "slices": [{"q": [0, 8], "k": [0, 8], "type": "full"}, )" + slice + "]}";
}

INSTANTIATE_TEST_SUITE_P(
    Json, BadMaskJson,
    testing::Values(
        BadJsonCase{"empty", "", "not JSON"}, BadJsonCase{"not_json", "{", "not JSON: parse error at column 2"},
        BadJsonCase{"trailing_text", R"({"total_q": 8, "total_k": 8, "slices": []} x)", "not JSON"},
        BadJsonCase{"invalid_utf8", "{\"total_q\xff\": 1}", "not JSON"},
        BadJsonCase{"a_list", "[]", "the document is a list, not an object"},
        BadJsonCase{"missing_key", R"({"total_q": 8, "slices": []})", "the document has no key \"total_k\""},
        BadJsonCase{"unknown_key", R"({"total_q": 8, "total_k": 8, "slices": [], "slice": []})",
                    "unknown key \"slice\"; did you mean \"slices\"?"},
        BadJsonCase{"repeated_key", R"({"total_q": 8, "total_q": 9, "total_k": 8, "slices": []})",
                    "key \"total_q\" appears twice"},
        BadJsonCase{"total_as_text", R"({"total_q": "8", "total_k": 8, "slices": []})",
                    "total_q is a string, not an integer"},
        BadJsonCase{"total_as_null", R"({"total_q": null, "total_k": 8, "slices": []})",
                    "total_q is null, not an integer"},
        BadJsonCase{"total_with_fraction", R"({"total_q": 8.0, "total_k": 8, "slices": []})",
                    "total_q is a number with a fraction"},
        BadJsonCase{"total_beyond_int64", R"({"total_q": 9223372036854775808, "total_k": 8, "slices": []})",
                    "total_q = 9223372036854775808 is above 9223372036854775807"},
        BadJsonCase{"total_beyond_uint64", R"({"total_q": 99999999999999999999, "total_k": 8, "slices": []})",
                    "total_q is a number with a fraction, an exponent or more digits than 64 bits hold"},
        BadJsonCase{"total_beyond_double", R"({"total_q": 1e999, "total_k": 8, "slices": []})", "not JSON"},
        BadJsonCase{"total_beyond_masks", R"({"total_q": 2147483648, "total_k": 8, "slices": []})",
                    "total_q = 2147483648 is outside [0, 2147483647]"},
        BadJsonCase{"slices_as_object", R"({"total_q": 8, "total_k": 8, "slices": {}})",
                    "slices is an object, not a list"},
        BadJsonCase{"slice_as_list", with_slice("[0, 8]"), "slices[1] is a list, not an object"},
        BadJsonCase{"slice_without_type", with_slice(R"({"q": [0, 8], "k": [0, 8]})"), "slices[1] has no key \"type\""},
        BadJsonCase{"slice_key", with_slice(R"({"q": [0, 8], "k": [0, 8], "typ": "full"})"),
                    "slices[1] has an unknown key \"typ\"; did you mean \"type\"?"},
        BadJsonCase{"slice_type", with_slice(R"({"q": [0, 8], "k": [0, 8], "type": "casual"})"),
                    "slices[1].type is an unknown mask type \"casual\"; did you mean \"causal\"?"},
        BadJsonCase{"slice_type_as_number", with_slice(R"({"q": [0, 8], "k": [0, 8], "type": 1})"),
                    "slices[1].type is a number, not a string"},
        BadJsonCase{"range_of_three", with_slice(R"({"q": [0, 4, 8], "k": [0, 8], "type": "full"})"),
                    "slices[1].q has 3 values"},
        BadJsonCase{"range_of_text", with_slice(R"({"q": [0, "8"], "k": [0, 8], "type": "full"})"),
                    "slices[1].q[1] is a string, not an integer"},
        BadJsonCase{"range_outside", with_slice(R"({"q": [0, 9], "k": [0, 8], "type": "full"})"),
                    "slice 1: q = [0, 9) is outside [0, 8)"},
        BadJsonCase{"deep", std::string(100000, '['), "nested deeper than 8 levels"}),
    [](const auto& info) { return info.param.name; });

TEST(MaskJson, IsWrittenOneSliceALine) {
  const AttnMaskSpec mask({{{0, 4}, {0, 4}, MaskType::kCausal}, {{4, 8}, {0, 8}, MaskType::kFull}}, 8, 8);
  EXPECT_EQ(mask_to_json(mask),
            "{\"total_q\": 8, \"total_k\": 8, \"slices\": [\n"
            "  {\"q\": [0, 4], \"k\": [0, 4], \"type\": \"causal\"},\n"
            "  {\"q\": [4, 8], \"k\": [0, 8], \"type\": \"full\"}\n]}\n");
  EXPECT_EQ(mask_to_json(AttnMaskSpec({}, 3, 4)), "{\"total_q\": 3, \"total_k\": 4, \"slices\": []}\n");
}

TEST(MaskSvg, DrawsEachPieceAsItsPolygon) {
  // 128 pixels for 64 tokens: two pixels a token, so edges are straight lines, in half tokens.
  const std::string svg = mask_to_svg(causal_mask(64, 64), {.size_px = 128});
  EXPECT_NE(svg.find("d='M0 0h1l128 128h-129z'"), std::string::npos) << svg;
  EXPECT_NE(svg.find("2,080 pairs attended (50.8 %)"), std::string::npos) << svg;
}

TEST(MaskSvg, DrawsTokensThatAreLargeEnoughToSee) {
  const std::string svg = mask_to_svg(causal_mask(3, 3), {.size_px = 640});
  EXPECT_NE(svg.find("d='M0 0H2v2h2v2h2V6H0z'"), std::string::npos) << svg;
}

TEST(MaskSvg, StaysSmall) {
  std::vector<int64_t> documents;
  for (int64_t i = 0; i < 3000; ++i) documents.push_back(50 + i * 7919 % 600);
  const std::string svg = mask_to_svg(varlen_mask(documents, MaskType::kCausal), {});
  EXPECT_LT(svg.size(), 40u * 3000 + 4096);
}

TEST(MaskSvg, EscapesItsTitle) {
  const std::string svg = mask_to_svg(causal_mask(3, 3), {.title = "a<b> & \x01"});
  EXPECT_NE(svg.find("a&lt;b&gt; &amp;  </text>"), std::string::npos) << svg;
}

TEST(MaskSvg, DrawsEmptyMasks) {
  EXPECT_NE(mask_to_svg(full_mask(0, 0), {}).find("no pair is attended"), std::string::npos);
  EXPECT_NE(mask_to_svg(AttnMaskSpec({}, 4, 4), {}).find("no pair is attended"), std::string::npos);
}

TEST(MaskSvg, RefusesSizesThatAreNoPicture) {
  expect_error(ErrorCode::kInvalidArgument, {"size_px = 0 is outside [64, 16384]"},
               [] { mask_to_svg(causal_mask(3, 3), {.size_px = 0}); });
}

}  // namespace
}  // namespace attnmux
