// One exception type for everything that fails loudly.
//
//   throw Error(ErrorCode::kInvalidArgument, "slice 3: q = [10, 4) is inverted; begin must not exceed end");
//
// The text names what was asked, what is allowed and what to change. The code decides the exit status of the
// command line tool (exit_status) and is what tests compare. Thrown from any thread, a plain value.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "attnmux/export.h"

namespace attnmux {

enum class ErrorCode {
  // What the user wrote: a config key, a flag, a file, a mask.
  kUsage,            // a flag or command line that cannot be taken
  kConfig,           // a key or value in TOML or config.json
  kBadFile,          // a file that is missing, truncated or not what it should be
  kInvalidArgument,  // a value passed to a function
  // Loading a plugin.
  kNotFound,
  kNotElf,
  kNoTag,
  kTagCorrupt,
  kAbiMismatch,
  kLinkError,
  kNoEntry,
  kForeignEntry,
  kTagDisagrees,
  kDuplicateId,
  kInitFailed,
  // Choosing a backend.
  kUnknownBackend,
  kUnsupported,
  kUnmatchedModule,
  kDeadRule,
  kRankDisagreement,
  // Running.
  kOutOfEnvelope,
  kContractBroken,
  kOutOfMemory,
  kDeviceError,
  kCommError,
  kMaskNotConsumed,
  kNonFinite,  // a loss or gradient norm that is NaN or infinite
  kIo,         // the system refused to read or write: full disk, permission
  kNothingExecuted,
  kInternal,
};

// Stable text of a code, e.g. "MaskNotConsumed".
ATTNMUX_API std::string_view to_string(ErrorCode code);

// 1 the work failed, 2 usage or config, 3 nothing was executed, 4 a plugin could not be loaded.
ATTNMUX_API int exit_status(ErrorCode code);

class ATTNMUX_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);
  ~Error() override;  // key function: one typeinfo, in the core library
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace attnmux
