// The loss of a model on held-out documents.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "attnmux/attend.h"
#include "attnmux/selection.h"
#include "models/data/packing.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

struct Evaluation {
  double loss = 0;     // mean over predicted tokens, nats
  int64_t tokens = 0;  // predicted tokens
};

// Packs the documents in the given order into sequences of seq_len and takes the mean loss of all predicted tokens. No
// gradients. Throws Error(kInvalidArgument) where nothing is predicted.
Evaluation evaluate(const CausalLm& model, const DocumentPacker::Documents& documents, int64_t seq_len,
                    const std::shared_ptr<const SelectionTable>& table, const std::shared_ptr<PreparedCache>& cache);

}  // namespace attnmux
