#include "models/io/tokenizer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "models/io/byte_symbols.h"
#include "models/io/onig_pattern.h"
#include "models/io/regex.h"
#include "models/io/utf8.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using nlohmann::json;
using Ids = std::vector<int64_t>;

// All bytes by their value, then a few merges and two special tokens.
json small() {
  json vocab = json::object();
  for (int byte = 0; byte < 256; ++byte) vocab[byte_symbol(static_cast<uint8_t>(byte))] = byte;
  vocab["he"] = 256;
  vocab["ll"] = 257;
  vocab["hell"] = 258;
  vocab["Ġhell"] = 259;
  vocab["el"] = 262;  // its merge comes last: found only where the others leave it
  return {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", 260}, {"content", "<s>"}, {"special", true}, {"normalized", false}},
        {{"id", 261}, {"content", "</s>"}, {"special", true}, {"normalized", false}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "l l", "he ll", json::array({"Ġ", "hell"}), "e l"}}}}};
}

Tokenizer load(const json& value) { return Tokenizer::from_json(value.dump(), "tokenizer.json"); }

Ids bytes_of(const std::string& text) {
  Ids ids;
  for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

constexpr EncodeOptions kPlain = {.add_special_tokens = false};

TEST(Tokenizer, MergesByRank) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.encode("hello hell", kPlain), (Ids{258, 'o', 259}));
  EXPECT_EQ(tokenizer.encode("yel", kPlain), (Ids{'y', 262}));
  EXPECT_EQ(tokenizer.vocab_size(), 263);
  EXPECT_EQ(tokenizer.token_id("Ġhell"), 259);
  EXPECT_EQ(tokenizer.token_id("</s>"), 261);
  EXPECT_FALSE(tokenizer.token_id("nothing").has_value());
}

TEST(Tokenizer, SpecialTokensInTheText) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.encode("<s>he</s>", kPlain), (Ids{260, 256, 261}));
  EXPECT_EQ(tokenizer.encode("<s>", {.add_special_tokens = false, .parse_special = false}), bytes_of("<s>"));
  EXPECT_EQ(tokenizer.decode({260, 256, 261}), "<s>he</s>");
  EXPECT_EQ(tokenizer.decode({260, 256, 261}, {.skip_special_tokens = true}), "he");
}

TEST(Tokenizer, TemplateIsAddedOnRequest) {
  json value = small();
  value["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"},
      {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}],
       "special_tokens": {"<s>": {"id": "<s>", "ids": [260]}, "</s>": {"id": "</s>", "ids": [261]}}}]})");
  EXPECT_EQ(load(value).encode("he", {.add_special_tokens = true}), (Ids{260, 256, 261}));
  EXPECT_EQ(load(value).encode("", {.add_special_tokens = true}), (Ids{260, 261}));
  EXPECT_EQ(load(value).encode("he", kPlain), (Ids{256}));
}

TEST(Tokenizer, EveryByteStringComesBack) {
  const Tokenizer tokenizer = load(small());
  std::string all;
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; b += 5) all += {static_cast<char>(a), static_cast<char>(b), 'x'};
  }
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all, kPlain)), all);
  EXPECT_EQ(tokenizer.encode("he\xffhe", kPlain), (Ids{256, 255, 256}));
}

// As converted from SentencePiece: characters, U+2581 for a blank, and a token for each byte (id 1 + byte).
json fallback() {
  json value = small();
  json vocab = {{"<unk>", 0}, {"▁", 257}, {"a", 258}, {"b", 259}, {"▁a", 260}, {"ab", 261}, {"▁ab", 262}};
  const char* digits = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    vocab[std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">"] = 1 + byte;
  }
  value["model"] = {{"type", "BPE"},
                    {"byte_fallback", true},
                    {"unk_token", "<unk>"},
                    {"vocab", vocab},
                    {"merges", {"▁ a", "a b", "▁a b"}}};
  value["added_tokens"] = json::array({{{"id", 263}, {"content", "<s>"}, {"special", true}, {"normalized", false}}});
  value["pre_tokenizer"] = nullptr;
  value["decoder"] = json::parse(R"({"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  return value;
}

const json kBlanks = json::parse(R"({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})");

TEST(TokenizerFallback, CharactersThatTheVocabularyLacksAreBytes) {
  json value = fallback();
  value["normalizer"] = kBlanks;
  const Tokenizer tokenizer = load(value);
  EXPECT_EQ(tokenizer.encode("ab abé", kPlain), (Ids{261, 262, 1 + 0xC3, 1 + 0xA9}));
  EXPECT_EQ(tokenizer.encode("a\xff b", kPlain), (Ids{258, 1 + 0xFF, 257, 259}));
  EXPECT_EQ(tokenizer.decode({261, 262, 1 + 0xC3, 1 + 0xA9, 1 + 0xFF}), "ab abé\xff");
  EXPECT_EQ(tokenizer.decode({262, 262}), "ab ab");
  EXPECT_EQ(tokenizer.decode({263, 262}), "<s> ab");
}

TEST(TokenizerFallback, ABlankIsPutInFrontWhereTheFileSaysSo) {
  const Ids plain{261, 263, 261}, first{262, 263, 261}, all{262, 263, 262};  // of "ab<s>ab"
  const auto with = [](const char* key, json step) {
    json value = fallback();
    value[key] = std::move(step);
    return load(value);
  };
  const auto metaspace = [&](const char* scheme) {
    return with("pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}});
  };
  const Tokenizer prepend =
      with("normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Prepend"}, {"prepend", "▁"}}, kBlanks}}});
  EXPECT_EQ(with("normalizer", kBlanks).encode("ab<s>ab", kPlain), plain);
  EXPECT_EQ(metaspace("never").encode("ab<s>ab", kPlain), plain);
  EXPECT_EQ(metaspace("first").encode("ab<s>ab", kPlain), first);
  EXPECT_EQ(metaspace("always").encode("ab<s>ab", kPlain), all);
  EXPECT_EQ(prepend.encode("ab<s>ab", kPlain), all);
  // Never between the parts of a text that a broken byte cuts: it must come back.
  for (const Tokenizer& tokenizer : {metaspace("always"), metaspace("first"), prepend}) {
    EXPECT_EQ(tokenizer.encode("ab\xff"
                               "ab",
                               kPlain),
              (Ids{262, 1 + 0xFF, 261}));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab\xff"
                                                "ab \xe2\x82",
                                                kPlain)),
              "ab\xff"
              "ab \xe2\x82");
  }
}

TEST(TokenizerFallback, BadFilesAreNamed) {
  json value = fallback();
  value["decoder"] = {{"type", "ByteLevel"}};
  expect_error(ErrorCode::kBadFile, {"decoder", "ByteFallback is expected"}, [&] { load(value); });
  value = fallback();
  value["pre_tokenizer"] = {{"type", "ByteLevel"}};
  expect_error(ErrorCode::kBadFile, {"pre_tokenizer", "beside model.byte_fallback"}, [&] { load(value); });
  value = fallback();
  value["model"]["vocab"].erase("<0x7F>");
  expect_error(ErrorCode::kBadFile, {"model.byte_fallback", "it lacks <0x7F>"}, [&] { load(value); });
  value = fallback();
  value["normalizer"] = kBlanks;
  value["added_tokens"][0]["content"] = "a b";
  value["added_tokens"][0]["normalized"] = true;
  expect_error(ErrorCode::kBadFile, {"added_tokens[0].id", "the normalizer changes its content"}, [&] { load(value); });
}

TEST(Tokenizer, AMissingByteIsAnErrorAndNotDropped) {
  json value = small();
  value["model"]["vocab"].erase(byte_symbol(0xFF));
  expect_error(ErrorCode::kInvalidArgument, {"byte 255"}, [&] { load(value).encode("a\xff", kPlain); });
}

TEST(Tokenizer, DecodeRefusesUnknownIds) {
  const Tokenizer tokenizer = load(small());
  expect_error(ErrorCode::kInvalidArgument, {"ids[1] = 263", "tokenizer.json", "262"}, [&] {
    tokenizer.decode({0, 263});
  });
  expect_error(ErrorCode::kInvalidArgument, {"ids[0] = -1"}, [&] { tokenizer.decode({-1}); });
}

TEST(Tokenizer, ThreadsShareOneTokenizer) {
  const Tokenizer tokenizer = load(small());
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& result : results) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) result = tokenizer.encode("hello hell " + std::to_string(i % 50), kPlain);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Ids& result : results) EXPECT_EQ(result, results[0]);
}

TEST(Tokenizer, BosAndEosFromTheFolder) {
  const TempDir dir;
  dir.write("tokenizer.json", small().dump());
  EXPECT_FALSE(Tokenizer::from_folder(dir.path()).bos_id().has_value());
  dir.write("special_tokens_map.json", R"({"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}})");
  EXPECT_EQ(Tokenizer::from_folder(dir.path()).bos_id(), 260);
  EXPECT_EQ(Tokenizer::from_folder(dir.path()).eos_id(), 261);
  dir.write("tokenizer_config.json", R"({"bos_token": null, "eos_token": "<s>"})");
  EXPECT_EQ(Tokenizer::from_folder(dir.path()).bos_id(), 260);
  EXPECT_EQ(Tokenizer::from_folder(dir.path()).eos_id(), 260);
  dir.write("tokenizer_config.json", R"({"eos_token": "<eos>"})");
  expect_error(ErrorCode::kBadFile, {"tokenizer_config.json", "eos_token is \"<eos>\""},
               [&] { Tokenizer::from_folder(dir.path()); });
}

struct BadTokenizer {
  std::string name;
  std::string pointer;  // into small(), set to `value`
  std::string value;
  std::vector<std::string> message;
};
void PrintTo(const BadTokenizer& bad, std::ostream* stream) { *stream << bad.name; }

class TokenizerBad : public ::testing::TestWithParam<BadTokenizer> {};

TEST_P(TokenizerBad, IsRefusedNamingFileAndKey) {
  json value = small();
  value[json::json_pointer(GetParam().pointer)] = json::parse(GetParam().value);
  std::vector<std::string> message = GetParam().message;
  message.push_back("tokenizer.json: ");
  expect_error(ErrorCode::kBadFile, message, [&] { load(value); });
}

constexpr char kSplit[] = R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": PATTERN},
    "behavior": "Isolated"}, {"type": "ByteLevel", "use_regex": false}]})";

std::string split_by(const std::string& pattern) {
  const std::string text = kSplit;
  return std::string(text).replace(text.find("PATTERN"), 7, json(pattern).dump());
}

INSTANTIATE_TEST_SUITE_P(
    Files, TokenizerBad,
    ::testing::Values(
        BadTokenizer{"Unigram", "/model/type", R"("Unigram")", {"model.type is \"Unigram\"", "byte-level BPE"}},
        BadTokenizer{"WordPiece", "/model/type", R"("WordPiece")", {"model.type is \"WordPiece\""}},
        BadTokenizer{"ByteFallback", "/model/byte_fallback", "true", {"model.byte_fallback is true", "<0x00>"}},
        BadTokenizer{"Dropout", "/model/dropout", "0.1", {"model.dropout is 0.1"}},
        BadTokenizer{"SubwordPrefix", "/model/continuing_subword_prefix", R"("##")", {"continuing_subword_prefix"}},
        BadTokenizer{"Nfkc", "/normalizer", R"({"type": "NFKC"})", {"normalizer.type is \"NFKC\"", "NFC"}},
        BadTokenizer{"Metaspace",
                     "/pre_tokenizer",
                     R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})",
                     {"pre_tokenizer", "without ByteLevel or model.byte_fallback"}},
        BadTokenizer{"MetaspaceScheme",
                     "/pre_tokenizer",
                     R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})",
                     {"prepend_scheme is \"last\"", "first, always and never"}},
        BadTokenizer{"FallbackDecoder",
                     "/decoder",
                     R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}]})",
                     {"decoder", "ByteLevel is expected"}},
        BadTokenizer{"DecoderOrder",
                     "/decoder",
                     R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"},
                         {"type": "Replace", "pattern": {"String": "_"}, "content": " "}]})",
                     {"decoder.decoders[1]", "before ByteFallback"}},
        BadTokenizer{"ReplaceByPattern",
                     "/normalizer",
                     R"({"type": "Replace", "pattern": {"Regex": "a+"}, "content": "b"})",
                     {"normalizer.pattern.String is missing"}},
        BadTokenizer{"NoPreTokenizer", "/pre_tokenizer", "null", {"pre_tokenizer"}},
        BadTokenizer{"NoByteLevel", "/pre_tokenizer", R"({"type": "Digits"})", {"without ByteLevel"}},
        BadTokenizer{"ByteLevelFirst",
                     "/pre_tokenizer",
                     R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Digits"}]})",
                     {"pre_tokenizer.pretokenizers[1]", "last"}},
        BadTokenizer{"UnknownBehavior",
                     "/pre_tokenizer",
                     R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "Cut"})",
                     {"pre_tokenizer.behavior is \"Cut\"", "Isolated"}},
        BadTokenizer{"BadPattern", "/pre_tokenizer", split_by("a(b"), {"pattern.Regex", "a(b", "parenthesis"}},
        BadTokenizer{"OtherSyntax", "/pre_tokenizer", split_by("\\w+"), {"pattern.Regex", "\\w is not built"}},
        BadTokenizer{"EmptyMatch", "/pre_tokenizer", split_by("a*"), {"pattern.Regex", "empty"}},
        BadTokenizer{"OtherDecoder", "/decoder/type", R"("WordPiece")", {"decoder.type is \"WordPiece\""}},
        BadTokenizer{"OtherPostProcessor",
                     "/post_processor",
                     R"({"type": "BertProcessing"})",
                     {"post_processor.type is \"BertProcessing\"", "TemplateProcessing"}},
        BadTokenizer{"TemplateOfUnknownId",
                     "/post_processor",
                     R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {}}],
                         "special_tokens": {"x": {"ids": [999]}}})",
                     {"post_processor", "999"}},
        BadTokenizer{"TemplateWithoutText",
                     "/post_processor",
                     R"({"type": "TemplateProcessing", "single": [], "special_tokens": {}})",
                     {"post_processor.single", "Sequence"}},
        BadTokenizer{"MergeOfUnknownToken", "/model/merges/0", R"("h xyz")", {"model.merges[0]", "\"xyz\""}},
        BadTokenizer{"MergeToUnknownToken", "/model/merges/0", R"("x y")", {"model.merges[0]", "\"xy\""}},
        BadTokenizer{"MergeWithoutBlank", "/model/merges/0", R"("he")", {"model.merges[0]", "blank"}},
        BadTokenizer{"MergeOfThree", "/model/merges/0", R"(["h", "e", "l"])", {"model.merges[0]", "two tokens"}},
        BadTokenizer{"IdTwice", "/model/vocab/he", "257", {"model.vocab", "same id"}},
        BadTokenizer{"NegativeId", "/model/vocab/he", "-1", {"model.vocab.he is -1"}},
        BadTokenizer{"HugeId", "/model/vocab/he", "4000000000", {"model.vocab.he is 4000000000"}},
        BadTokenizer{"AddedIdTaken", "/added_tokens/0/id", "256", {"added_tokens[0].id is 256", "another token"}},
        BadTokenizer{"AddedIdTwice", "/added_tokens/1/id", "260", {"added_tokens[1].id is 260", "\"<s>\""}},
        BadTokenizer{"AddedTwice", "/added_tokens/1/content", R"("<s>")", {"added_tokens[1].content", "twice"}},
        BadTokenizer{"AddedWithOtherId", "/added_tokens/0/content", R"("he")", {"added_tokens[0].id", "256"}},
        BadTokenizer{"AddedFarAway", "/added_tokens/0/id", "2000000000", {"added_tokens[0].id", "far beyond"}},
        BadTokenizer{"AddedEmpty", "/added_tokens/0/content", R"("")", {"added_tokens[0].content", "empty"}},
        BadTokenizer{"VocabAnArray", "/model/vocab", "[]", {"model.vocab is an array", "object"}}),
    [](const auto& info) { return info.param.name; });

TEST(Tokenizer, AnUnknownTokenNeedsAllBytes) {
  json value = small();
  value["model"]["unk_token"] = "<s>";
  EXPECT_EQ(load(value).encode("he", kPlain), (Ids{256}));
  value["model"]["vocab"].erase(byte_symbol(7));
  expect_error(ErrorCode::kBadFile, {"model.unk_token"}, [&] { load(value); });
}

TEST(Tokenizer, MissingAndBrokenFilesAreNamed) {
  const TempDir dir;
  expect_error(ErrorCode::kBadFile, {dir.path() + "/tokenizer.json", "No such file"},
               [&] { Tokenizer::from_folder(dir.path()); });
  expect_error(ErrorCode::kBadFile, {"t.json: is not JSON: parse error at column 2"},
               [] { Tokenizer::from_json("{", "t.json"); });
  expect_error(ErrorCode::kBadFile, {"t.json", "model is missing"}, [] { Tokenizer::from_json("{}", "t.json"); });
}

TEST(Utf8, WellFormedOnly) {
  for (const char* good :
       {"a", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff"}) {
    EXPECT_EQ(utf8_character_size(good), std::string(good).size()) << good;
  }
  for (const char* bad : {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
                          "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xc3", "\xe2(\xa1"}) {
    EXPECT_EQ(utf8_character_size(bad), 0u) << testing::PrintToString(std::string(bad));
  }
  EXPECT_EQ(valid_utf8_prefix("a\u00e9\xff z"), 3u);
  EXPECT_EQ(last_utf8_character("a\u20ac"), 1u);
}

TEST(ByteSymbols, AreGpt2s) {
  EXPECT_EQ(byte_symbol(' '), "Ġ");
  EXPECT_EQ(byte_symbol('\n'), "Ċ");
  EXPECT_EQ(byte_symbol('!'), "!");
  EXPECT_EQ(byte_symbol(0xAD), "Ń");
  EXPECT_EQ(byte_symbol(0xFF), "ÿ");
  EXPECT_EQ(bytes_of_symbols("Ġa"), " a");
  EXPECT_FALSE(bytes_of_symbols("a b").has_value());
  EXPECT_FALSE(bytes_of_symbols("你").has_value());
  EXPECT_FALSE(bytes_of_symbols("\xff").has_value());
}

TEST(OnigPattern, RewritesWhatDiffers) {
  EXPECT_EQ(pcre2_from_onig(R"(\s+(?!\S)|[^\s\r\n])"), R"(\p{White_Space}+(?!\P{White_Space})|[^\p{White_Space}\r\n])");
  EXPECT_EQ(pcre2_from_onig(R"((?i:'s|'t)|\p{Han}+|\P{^Han}\u00e9)"), R"((?i:'s|'t)|\p{sc:Han}+|\p{sc:Han}\x{00e9})");
  EXPECT_EQ(pcre2_from_onig(R"([\]\[\-a]{1,3}\.\/)"), R"([\]\[\-a]{1,3}\.\/)");
  EXPECT_EQ(pcre2_from_onig(R"(\p{Zs}|[^\p{Zs}])"), R"([\p{Zs}]|[^\p{Zs}])");
}

TEST(OnigPattern, CategoriesAreThoseOfUnicode16) {
  const std::string letters = "a\U00031350\U00010D4A";  // CJK extension H, Garay: Unicode 15 and 16
  for (const char* pattern : {R"(\p{L}+)", R"([\p{L}]+)", R"([^\s\p{N}]+)"}) {
    const auto match = Regex(pcre2_from_onig(pattern), Regex::Kind::kPattern).find(letters, 0);
    ASSERT_TRUE(match.has_value()) << pattern;
    EXPECT_EQ(match->end - match->begin, letters.size()) << pattern;
  }
  EXPECT_FALSE(Regex(pcre2_from_onig(R"(\P{L})"), Regex::Kind::kPattern).find(letters, 0).has_value());
  EXPECT_FALSE(Regex(pcre2_from_onig(R"(\D)"), Regex::Kind::kPattern).find("7\U00010D40", 0).has_value());
}

TEST(OnigPattern, RefusesWhatMeansSomethingElse) {
  for (const char* pattern : {"\\w",         "\\h",     "\\b",   "^a",    "a$",     "[a[b]]",  "[a&&b]",
                              "[[:alpha:]]", "a{1,3}+", "a{2}?", "a{,2}", "(?m:a)", "(?<n>a)", "\\1",
                              "\\k<n>",      "(*UTF)",  "\\u12", "\\p{L", "a\\",    "[]a]",    "[\\P{L}]"}) {
    expect_error(ErrorCode::kUnsupported, {pattern, "at byte"}, [&] { pcre2_from_onig(pattern); });
  }
}

TEST(Regex, GivingUpIsAnError) {
  const Regex regex("(?:a+)+[bc]", Regex::Kind::kPattern);
  expect_error(ErrorCode::kInvalidArgument, {"(?:a+)+[bc]", "match limit"},
               [&] { regex.find(std::string(200, 'a') + "d", 0); });
}

}  // namespace
}  // namespace attnmux
