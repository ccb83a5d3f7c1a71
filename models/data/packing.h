// Documents packed into sequences of seq_len tokens, each with the mask that keeps them apart.
//
//   DocumentPacker packer(documents, {.seq_len = 1024, .seed = 7});
//   while (std::optional<PackedBatch> batch = packer.next()) train(*batch);
//
// Labels are shifted inside each document before packing: token i carries token i + 1 of its own document as label and
// a document's last token (its EOS) kIgnoredLabel, so nothing predicts another document's first token. A document that
// reaches beyond the sequence's end is cut there; its rest opens the next sequence as a segment of its own, with
// positions from 0 and without sight of the first part. The cut loses no label: they were shifted before. One that is
// not divisible, a conversation, is never cut: where it does not fit any more, the sequence ends before it, shorter.
//
// The order is a function of (seed, epoch) alone, the same on every machine, and position() is all it takes to go on
// where another packer stopped. One thread at a time; the documents are shared and not copied.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "attnmux/mask.h"
#include "models/data/documents.h"

namespace attnmux {

struct PackedBatch {
  at::Tensor input_ids;                    // [tokens] int64
  at::Tensor position_ids;                 // [tokens] int64, from 0 in each segment
  at::Tensor labels;                       // [tokens] int64, kIgnoredLabel where there is nothing to predict
  std::vector<int64_t> seqlens;            // tokens of each segment
  int64_t valid_tokens = 0;                // labels that are not ignored, at least 1
  AttnMaskSpec mask;                       // varlen, causal
  std::vector<DocumentImage> images = {};  // in the order of their tokens
};

// The next token to be read: of the document that is `document`-th in the epoch's order.
struct DataPosition {
  int64_t epoch = 0;
  int64_t document = 0;
  int64_t token = 0;
  friend bool operator==(const DataPosition&, const DataPosition&) = default;
};

struct PackingOptions {
  int64_t seq_len = 1024;
  bool packing = true;  // false: a sequence holds one document, or a piece of seq_len tokens of it
  bool shuffle = true;  // a new order each epoch; false: as given
  bool repeat = true;   // epoch after epoch without end; false: one pass, whose last sequence may be shorter
  uint64_t seed = 0;
};

class DocumentPacker {
 public:
  using Documents = std::shared_ptr<const std::vector<TokenizedDocument>>;

  // Throws Error(kInvalidArgument): seq_len below 2, no documents, an indivisible document that is longer, and with
  // `repeat` and `packing` fewer tokens in all than one sequence takes.
  DocumentPacker(Documents documents, const PackingOptions& options);

  // nullopt at the end of the only pass.
  std::optional<PackedBatch> next();

  const DataPosition& position() const { return position_; }
  // Throws Error(kInvalidArgument) for a position that these documents do not have.
  void seek(const DataPosition& position);

 private:
  struct Segments;
  void start_epoch(int64_t epoch);
  bool at_end();
  void fill(Segments& segments);

  Documents documents_;
  PackingOptions options_;
  DataPosition position_;
  std::vector<int64_t> order_;  // of the epoch
};

}  // namespace attnmux
