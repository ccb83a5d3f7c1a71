#include "conformance/checks.h"

#include <utility>

namespace attnmux::conformance {
namespace {

constexpr std::pair<Check, const char*> kNames[] = {
    {Check::kExports, "meta.exports"},
    {Check::kNeeded, "meta.needed"},
    {Check::kInfo, "meta.info"},
    {Check::kInitTwice, "meta.init-twice"},
    {Check::kSideBySide, "meta.side-by-side"},
    {Check::kQueryPure, "query.pure"},
    {Check::kQueryThreads, "query.threads"},
    {Check::kQueryReasons, "query.reasons"},
    {Check::kQueryAllGates, "query.all-gates"},
    {Check::kQueryCarried, "query.carried"},
    {Check::kRefusedAfterYes, "call.refused-after-yes"},
    {Check::kErrorType, "call.error-type"},
    {Check::kShape, "call.shape"},
    {Check::kFinite, "call.finite"},
    {Check::kBoundMax, "bound.max"},
    {Check::kBoundFrobenius, "bound.frobenius"},
    {Check::kCap, "bound.cap"},
    {Check::kEmptyOut, "empty.out"},
    {Check::kEmptyLse, "empty.lse"},
    {Check::kEmptyGrad, "empty.grad"},
    {Check::kLseMerge, "lse.merge"},
    {Check::kInputsUnchanged, "memory.inputs"},
    {Check::kGuard, "memory.guard"},
    {Check::kDeterminism, "determinism.bits"},
    {Check::kConcurrency, "concurrency.results"},
    {Check::kMemoryGrowth, "memory.growth"},
    {Check::kMemoryLeak, "memory.leak"},
    {Check::kGroupCall, "group.call"},
    {Check::kGroupIdentity, "group.identity"},
    {Check::kGroupBytes, "group.bytes"},
    {Check::kGroupInputs, "group.inputs"},
    {Check::kGroupSum, "group.sum"},
    {Check::kGroupCount, "group.count"},
    {Check::kGroupArguments, "group.arguments"},
    {Check::kFaultSurfaces, "fault.surfaces"},
    {Check::kFaultNames, "fault.names"},
    {Check::kFaultStays, "fault.stays"},
};

}  // namespace

std::string_view to_string(Check check) {
  for (const auto& [value, name] : kNames) {
    if (value == check) return name;
  }
  return "?";
}

const std::vector<Check>& all_checks() {
  static const std::vector<Check> checks = [] {
    std::vector<Check> result;
    for (const auto& entry : kNames) result.push_back(entry.first);
    return result;
  }();
  return checks;
}

}  // namespace attnmux::conformance
