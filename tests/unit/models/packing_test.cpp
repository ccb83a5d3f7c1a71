// Documents on disk, and their packing into sequences.
#include "models/data/packing.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "attnmux/mask_builders.h"
#include "models/nn/linear_cross_entropy.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> values(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

DocumentPacker::Documents share(std::vector<TokenizedDocument> documents) {
  return std::make_shared<const std::vector<TokenizedDocument>>(std::move(documents));
}

constexpr PackingOptions kOnePass = {.seq_len = 6, .shuffle = false, .repeat = false};

// Document d holds 100 d, 100 d + 1, ...: any label that is not its own token's successor is wrong.
DocumentPacker::Documents numbered(const std::vector<int64_t>& lengths) {
  std::vector<TokenizedDocument> documents;
  for (size_t d = 0; d < lengths.size(); ++d) {
    TokenizedDocument document{.ids = std::vector<int64_t>(lengths[d])};
    std::iota(document.ids.begin(), document.ids.end(), 100 * static_cast<int64_t>(d));
    documents.push_back(document);
  }
  return share(documents);
}

TEST(Packing, ShiftsLabelsBeforePackingAndCutsAtTheEnd) {
  DocumentPacker packer(share({{.ids = {10, 11, 12, 2}}, {.ids = {20, 21, 22, 23, 24, 2}}, {.ids = {30, 2}}}),
                        kOnePass);
  const PackedBatch first = *packer.next();
  EXPECT_THAT(values(first.input_ids), ElementsAre(10, 11, 12, 2, 20, 21));
  EXPECT_THAT(values(first.labels), ElementsAre(11, 12, 2, -100, 21, 22));  // 22 lies behind the cut
  EXPECT_THAT(values(first.position_ids), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_THAT(first.seqlens, ElementsAre(4, 2));
  EXPECT_EQ(first.valid_tokens, 5);
  EXPECT_EQ(first.mask, varlen_mask({4, 2}, MaskType::kCausal));
  const PackedBatch second = *packer.next();
  EXPECT_THAT(values(second.input_ids), ElementsAre(22, 23, 24, 2, 30, 2));
  EXPECT_THAT(values(second.labels), ElementsAre(23, 24, 2, -100, 2, -100));
  EXPECT_THAT(values(second.position_ids), ElementsAre(0, 1, 2, 3, 0, 1));
  EXPECT_FALSE(packer.next().has_value());
}

TEST(Packing, WhatMayNotBeCutBeginsTheNextSequence) {
  TokenizedDocument chat{.ids = {50, 51, 52, 53}, .is_label = {false, false, true, true}, .divisible = false};
  DocumentPacker packer(share({{.ids = {10, 11, 12, 2}}, chat, {.ids = {30, 31, 2}}}), kOnePass);
  EXPECT_THAT(values(packer.next()->input_ids), ElementsAre(10, 11, 12, 2));
  const PackedBatch second = *packer.next();
  EXPECT_THAT(values(second.input_ids), ElementsAre(50, 51, 52, 53, 30, 31));
  EXPECT_THAT(values(second.labels), ElementsAre(-100, 52, 53, -100, 31, 2));
  EXPECT_EQ(second.valid_tokens, 4);
  expect_error(ErrorCode::kInvalidArgument, {"4 tokens that may not be cut", "seq_len = 3"},
               [&] { DocumentPacker(share({chat}), {.seq_len = 3}); });
}

TEST(Packing, NoDocumentPredictsTheNextOne) {
  DocumentPacker packer(numbered({3, 17, 2, 9, 40, 5, 1}), {.seq_len = 13, .seed = 3});
  for (int i = 0; i < 50; ++i) {
    const PackedBatch batch = *packer.next();
    ASSERT_EQ(batch.input_ids.size(0), 13);
    int64_t valid = 0;
    for (int64_t t = 0; t < 13; ++t) {
      const int64_t id = batch.input_ids[t].item<int64_t>();
      const int64_t label = batch.labels[t].item<int64_t>();
      if (label == kIgnoredLabel) continue;
      ++valid;
      EXPECT_EQ(label, id + 1);
    }
    EXPECT_EQ(batch.valid_tokens, valid);
    EXPECT_EQ(std::accumulate(batch.seqlens.begin(), batch.seqlens.end(), int64_t{0}), 13);
  }
}

TEST(Packing, AnEpochHoldsEveryTokenOnce) {
  const DocumentPacker::Documents documents = numbered({3, 17, 2, 9, 40, 5});
  DocumentPacker packer(documents, {.seq_len = 19, .shuffle = true, .repeat = false, .seed = 5});
  std::multiset<int64_t> seen, expected;
  int64_t labels = 0;
  while (const auto batch = packer.next()) {
    for (const int64_t id : values(batch->input_ids)) seen.insert(id);
    labels += batch->valid_tokens;
  }
  for (const TokenizedDocument& document : *documents) expected.insert(document.ids.begin(), document.ids.end());
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(labels, count_tokens(*documents) - static_cast<int64_t>(documents->size()));
}

TEST(Packing, OrderFollowsSeedAndEpoch) {
  const DocumentPacker::Documents documents = numbered(std::vector<int64_t>(40, 4));
  const auto order = [&](uint64_t seed, int64_t epoch) {
    DocumentPacker packer(documents, {.seq_len = 4, .seed = seed});
    packer.seek({.epoch = epoch});
    std::vector<int64_t> firsts;
    for (int i = 0; i < 40; ++i) firsts.push_back(packer.next()->input_ids[0].item<int64_t>());
    return firsts;
  };
  EXPECT_EQ(order(1, 0), order(1, 0));
  EXPECT_NE(order(1, 0), order(2, 0));
  EXPECT_NE(order(1, 0), order(1, 1));
  // From the definition (splitmix64, Fisher-Yates), worked out apart from this code.
  const std::vector<int64_t> start = order(1, 0);
  EXPECT_THAT(std::vector<int64_t>(start.begin(), start.begin() + 5), ElementsAre(1100, 1700, 0, 2400, 600));
}

TEST(Packing, GoesOnFromAnyPosition) {
  const DocumentPacker::Documents documents = numbered({3, 17, 2, 9, 40, 5});
  const PackingOptions options{.seq_len = 11, .seed = 9};
  DocumentPacker whole(documents, options);
  for (int i = 0; i < 30; ++i) {
    DocumentPacker resumed(documents, options);
    resumed.seek(whole.position());
    const PackedBatch expected = *whole.next();
    const PackedBatch got = *resumed.next();
    EXPECT_TRUE(at::equal(got.input_ids, expected.input_ids)) << "batch " << i;
    EXPECT_EQ(got.seqlens, expected.seqlens);
    EXPECT_EQ(resumed.position(), whole.position());
  }
  EXPECT_GT(whole.position().epoch, 2);
}

TEST(Packing, WithoutPackingASequenceHoldsOneDocumentOrAPieceOfIt) {
  PackingOptions options = kOnePass;
  options.packing = false;
  DocumentPacker packer(numbered({4, 14, 1, 7}), options);  // 7 tokens: the second piece is a lone last token
  std::vector<int64_t> lengths;
  while (const auto batch = packer.next()) {
    EXPECT_EQ(batch->seqlens.size(), 1u);
    lengths.push_back(batch->input_ids.size(0));
  }
  EXPECT_THAT(lengths, ElementsAre(4, 6, 6, 2, 6));
}

TEST(Packing, RefusesWhatCannotFillASequence) {
  expect_error(ErrorCode::kInvalidArgument, {"shorter than one sequence", "7 tokens", "seq_len = 8", "lower seq_len"},
               [] {
                 DocumentPacker(numbered({3, 4}), {.seq_len = 8});
               });
  expect_error(ErrorCode::kInvalidArgument, {"seq_len = 1"}, [] { DocumentPacker(numbered({3}), {.seq_len = 1}); });
  expect_error(ErrorCode::kInvalidArgument, {"no documents"}, [] { DocumentPacker(share({}), {.seq_len = 8}); });
  DocumentPacker packer(numbered({3, 4}), {.seq_len = 4});
  expect_error(ErrorCode::kInvalidArgument, {"document 3 of 2"}, [&] { packer.seek({.document = 3}); });
  expect_error(ErrorCode::kInvalidArgument, {"token 9"}, [&] { packer.seek({.token = 9}); });
}

class DocumentFiles : public ::testing::Test {
 protected:
  TempDir dir;
};

TEST_F(DocumentFiles, TextIsOneDocumentAFileAndJsonlOneALine) {
  const std::string text = dir.write("a.txt", "one\ntwo\n");
  EXPECT_EQ(read_documents(DataKind::kText, {text, text}).size(), 2u);
  const std::string lines =
      dir.write("a.jsonl", "{\"text\": \"one\\ntwo\", \"id\": 7}\r\n\n{\"text\": \"h\\u00e9\\ud83d\\ude00\"}");
  const std::vector<Document> documents = read_documents(DataKind::kJsonl, {lines});
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "one\ntwo");
  EXPECT_EQ(documents[1].text, "h\xc3\xa9\xf0\x9f\x98\x80");
  EXPECT_EQ(documents[1].origin, lines + ":3");
}

TEST_F(DocumentFiles, BadOnesAreNamedWithTheirLine) {
  const auto expect_bad = [&](DataKind kind, const std::string& bytes, const std::vector<std::string>& parts) {
    const std::string path = dir.write("bad", bytes);
    expect_error(ErrorCode::kBadFile, parts, [&] { read_documents(kind, {path}); });
  };
  expect_bad(DataKind::kText, "", {"bad: the text is empty"});
  expect_bad(DataKind::kText, " \n\t\n", {"bad: the text is empty"});
  expect_bad(DataKind::kText, "fine\nna\xefve\n", {"bad:2: invalid UTF-8 at byte 7", "iconv"});
  expect_bad(DataKind::kText, std::string("surrogate \xed\xa0\x80"), {"invalid UTF-8 at byte 10"});
  expect_bad(DataKind::kJsonl, "\n\n", {"bad: no documents"});
  expect_bad(DataKind::kJsonl, "{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n", {"bad:2: invalid UTF-8"});
  expect_bad(DataKind::kJsonl, "{\"text\": \"a\"}\n{\"text\": \"b\"\n",
             {"bad:2: is not JSON: parse error at column 13", "correct it there"});
  expect_bad(DataKind::kJsonl, "{\"text\": \"a\"}\n{\"text\": \"b\", \"text\": \"c\"}\n",
             {"bad:2: an object has the key \"text\" twice", "remove one"});
  expect_bad(DataKind::kJsonl, "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n", {"bad:3: expected an object", "\"text\""});
  expect_bad(DataKind::kJsonl, "[1]\n", {"bad:1: expected an object"});
  expect_bad(DataKind::kJsonl, "{\"text\": 3}\n", {"bad:1: expected an object"});
  expect_bad(DataKind::kJsonl, "{\"text\": \" \"}\n", {"bad:1: \"text\" is empty"});
  expect_error(ErrorCode::kBadFile, {"missing.txt"},
               [&] { read_documents(DataKind::kText, {dir.file("missing.txt")}); });
}

}  // namespace
}  // namespace attnmux
