// The tokenizer against the `tokenizers` package: goldens by tests/golden/make_tokenizer_goldens.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "models/io/atomic_file.h"
#include "models/io/tokenizer.h"

namespace attnmux {
namespace {

using nlohmann::json;

constexpr char kFortunes[] = "/usr/share/games/fortunes/";
constexpr char kSmolLM2[] = ATTNMUX_BUILD_DIR "/data/smollm2";  // made by tools/demo

uint64_t fnv1a(const std::string& bytes) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const char byte : bytes) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001B3;
  return hash;
}

std::string hex(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string hash_of(const std::vector<int64_t>& ids) {
  std::string bytes;
  for (const int64_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(id >> shift);
  }
  return hex(fnv1a(bytes));
}

const json& goldens() {
  static const json value = json::parse(read_whole_file(ATTNMUX_SOURCE_DIR "/tests/golden/tokenizers/goldens.json"));
  return value;
}

// Output of a command.
std::string run(const std::string& command) {
  std::string output;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return output;
  char buffer[1 << 16];
  for (size_t count; (count = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, count);
  ::pclose(pipe);
  return output;
}

// The Jargon File's lines [from, from + count).
std::string jargon_lines(size_t from, size_t count) {
  static const std::string text = [] {
    for (const std::string path :
         {ATTNMUX_BUILD_DIR "/data/jargon.txt.gz", "/usr/share/doc/jargon-text/jargon.txt.gz"}) {
      if (std::filesystem::exists(path)) return run("gzip -dc '" + path + "'");
    }
    return std::string();
  }();
  const auto skip_lines = [&](size_t begin, size_t lines) {
    for (; lines > 0 && begin < text.size(); --lines) begin = std::min(text.find('\n', begin), text.size() - 1) + 1;
    return begin;
  };
  const size_t begin = skip_lines(0, from);
  return text.substr(begin, skip_lines(begin, count) - begin);
}

// "jargon:2000", "fortunes:law"; empty when the package is not installed.
std::string corpus_text(const std::string& name) {
  const std::string rest = name.substr(name.find(':') + 1);
  if (name[0] == 'j') return jargon_lines(std::stoul(rest), goldens()["jargon_lines"]);
  return std::filesystem::exists(kFortunes + rest) ? read_whole_file(kFortunes + rest) : "";
}

std::string stress_text(const json& stress) {
  const std::string digits = stress["hex"];
  std::string unit, text;
  for (size_t i = 0; i < digits.size(); i += 2) unit += static_cast<char>(std::stoi(digits.substr(i, 2), nullptr, 16));
  for (int64_t i = 0; i < stress["repeat"]; ++i) text += unit;
  return text;
}

// Compares with an answer of the package: all ids, or their number, hash and first few.
void expect_equal(const std::vector<int64_t>& ids, const json& answer, const std::string& name) {
  const std::vector<int64_t> known = answer[answer.contains("ids") ? "ids" : "first"];
  size_t same = 0;
  while (same < std::min(known.size(), ids.size()) && known[same] == ids[same]) ++same;
  EXPECT_EQ(ids.size(), answer["count"].get<size_t>()) << name << ": number of ids";
  if (same < known.size()) {
    ADD_FAILURE() << name << ": first difference at index " << same << ": "
                  << (same < ids.size() ? std::to_string(ids[same]) : "the end") << ", expected " << known[same];
  } else if (answer.contains("hash")) {
    EXPECT_EQ(hash_of(ids), answer["hash"].get<std::string>()) << name << ": hash of the ids";
  }
}

class TokenizerGolden : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const bool smollm2 = GetParam() == "smollm2";
    if (smollm2 && !std::filesystem::exists(kSmolLM2)) {
      GTEST_SKIP() << kSmolLM2 << " is missing; tools/demo makes it";
    }
    tokenizer_ = std::make_unique<Tokenizer>(
        smollm2 ? Tokenizer::from_folder(kSmolLM2)
                : Tokenizer::from_file(ATTNMUX_SOURCE_DIR "/tests/golden/tokenizers/" + GetParam() + ".json"));
  }

  std::vector<int64_t> encode(const std::string& text) const {
    return tokenizer_->encode(text, {.add_special_tokens = true});
  }
  // The others drop characters, add blanks or take some away at the start, or return NFC.
  bool returns_bytes() const {
    static const std::set<std::string> changing = {"splits", "qwen_nfc", "llama2", "mistral", "metaspace"};
    return !changing.contains(GetParam());
  }
  void expect_bytes_back(const std::string& text, const std::string& name) const {
    if (!returns_bytes()) return;
    const std::string back = tokenizer_->decode(tokenizer_->encode(text, {.add_special_tokens = false}));
    EXPECT_TRUE(back == text) << name << ": decode(encode(text)) has " << back.size() << " bytes, expected "
                              << text.size() << ", first difference at "
                              << std::mismatch(back.begin(), back.end(), text.begin(), text.end()).first - back.begin();
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, StressTexts) {
  const json& answers = goldens()["kinds"][GetParam()]["stress"];
  ASSERT_EQ(answers.size(), goldens()["stress"].size());
  for (const auto& [name, answer] : answers.items()) {
    const std::string text = stress_text(goldens()["stress"][name]);
    if (answer.contains("refused")) {
      EXPECT_ANY_THROW(encode(text)) << name;
      continue;
    }
    if (!answer.contains("unanswered")) expect_equal(encode(text), answer, name);
    expect_bytes_back(text, name);
  }
}

TEST_P(TokenizerGolden, JargonFileAndFortunes) {
  const json& answers = goldens()["kinds"][GetParam()]["corpus"];
  size_t missing = 0;
  for (const auto& [name, answer] : answers.items()) {
    const std::string text = corpus_text(name);
    if (hex(fnv1a(text)) != goldens()["corpus"][name]["hash"].get<std::string>()) {
      ++missing;
      continue;
    }
    expect_equal(encode(text), answer, name);
    expect_bytes_back(text, name);
  }
  if (missing > 0 && !HasFailure()) {
    GTEST_SKIP() << missing << " of " << answers.size() << " texts are missing or differ from those of the goldens; "
                 << "install jargon-text, fortunes and fortunes-min of Debian 12";
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerGolden,
                         ::testing::Values("gpt2", "digits", "llama3", "qwen", "qwen_nfc", "o200k", "splits", "gemma",
                                           "llama2", "mistral", "metaspace", "smollm2"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace attnmux
