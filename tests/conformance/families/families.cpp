#include "conformance/families.h"

namespace attnmux::conformance {

void run_case(const Subject& subject, const Case& c, CaseResult& result) {
  switch (c.family) {
    case Family::kMeta: return run_meta(subject, c, result);
    case Family::kQuery: return run_query(subject, c, result);
    case Family::kForward:
    case Family::kBackward:
    case Family::kLse:
    case Family::kEmptyRows:
    case Family::kGqa:
    case Family::kDtype:
    case Family::kHonesty: return run_numbers(subject, c, result);
    case Family::kStrides: return run_strides(subject, c, result);
    case Family::kDeterminism: return run_determinism(subject, c, result);
    case Family::kStreams: return run_streams(subject, c, result);
    case Family::kConcurrency: return run_concurrency(subject, c, result);
    case Family::kMemory: return run_memory(subject, c, result);
    case Family::kErrors: return run_errors(subject, c, result);
    case Family::kCp: return run_cp(subject, c, result);
    case Family::kGroup:
    case Family::kFaults: return result.suite_error("a case of a group of ranks was given to one process");
  }
}

}  // namespace attnmux::conformance
