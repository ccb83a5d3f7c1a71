#include "attnmux/error.h"

namespace attnmux {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage: return "Usage";
    case ErrorCode::kConfig: return "Config";
    case ErrorCode::kBadFile: return "BadFile";
    case ErrorCode::kInvalidArgument: return "InvalidArgument";
    case ErrorCode::kNotFound: return "NotFound";
    case ErrorCode::kNotElf: return "NotElf";
    case ErrorCode::kNoTag: return "NoTag";
    case ErrorCode::kTagCorrupt: return "TagCorrupt";
    case ErrorCode::kAbiMismatch: return "AbiMismatch";
    case ErrorCode::kLinkError: return "LinkError";
    case ErrorCode::kNoEntry: return "NoEntry";
    case ErrorCode::kForeignEntry: return "ForeignEntry";
    case ErrorCode::kTagDisagrees: return "TagDisagrees";
    case ErrorCode::kDuplicateId: return "DuplicateId";
    case ErrorCode::kInitFailed: return "InitFailed";
    case ErrorCode::kUnknownBackend: return "UnknownBackend";
    case ErrorCode::kUnsupported: return "Unsupported";
    case ErrorCode::kUnmatchedModule: return "UnmatchedModule";
    case ErrorCode::kDeadRule: return "DeadRule";
    case ErrorCode::kRankDisagreement: return "RankDisagreement";
    case ErrorCode::kOutOfEnvelope: return "OutOfEnvelope";
    case ErrorCode::kContractBroken: return "ContractBroken";
    case ErrorCode::kOutOfMemory: return "OutOfMemory";
    case ErrorCode::kDeviceError: return "DeviceError";
    case ErrorCode::kCommError: return "CommError";
    case ErrorCode::kMaskNotConsumed: return "MaskNotConsumed";
    case ErrorCode::kNonFinite: return "NonFinite";
    case ErrorCode::kIo: return "Io";
    case ErrorCode::kNothingExecuted: return "NothingExecuted";
    case ErrorCode::kInternal: return "Internal";
  }
  return "Internal";
}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
    case ErrorCode::kConfig:
    case ErrorCode::kBadFile:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnknownBackend:
    case ErrorCode::kUnsupported:
    case ErrorCode::kUnmatchedModule:
    case ErrorCode::kDeadRule: return 2;
    case ErrorCode::kNothingExecuted: return 3;
    case ErrorCode::kNotFound:
    case ErrorCode::kNotElf:
    case ErrorCode::kNoTag:
    case ErrorCode::kTagCorrupt:
    case ErrorCode::kAbiMismatch:
    case ErrorCode::kLinkError:
    case ErrorCode::kNoEntry:
    case ErrorCode::kForeignEntry:
    case ErrorCode::kTagDisagrees:
    case ErrorCode::kDuplicateId:
    case ErrorCode::kInitFailed: return 4;
    default: return 1;
  }
}

Error::Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
Error::~Error() = default;

}  // namespace attnmux
