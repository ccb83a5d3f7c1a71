// The loss of a model on held-out documents.
#pragma once

#include <cstdint>

#include "models/data/packing.h"
#include "models/train/run_context.h"

namespace attnmux {

struct Evaluation {
  double loss = 0;     // mean over predicted tokens, nats
  int64_t tokens = 0;  // predicted tokens
};

// Packs the documents in the given order into sequences of seq_len and takes the mean loss of all predicted tokens. No
// gradients. Replicas of the model share the sequences; the result is the same on every rank. Throws
// Error(kInvalidArgument) where nothing is predicted.
Evaluation evaluate(const RunContext& run, const DocumentPacker::Documents& documents, int64_t seq_len);

}  // namespace attnmux
