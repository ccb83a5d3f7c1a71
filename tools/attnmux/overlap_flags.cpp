#include "tools/attnmux/overlap_flags.h"

#include "attnmux/cost_model.h"
#include "attnmux/error.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

StageOptions parse_stages(const std::string& text, const std::string& flag) {
  if (text == "auto") return {.stages = kAutoStages};
  if (text.empty() || text.find_first_not_of("-0123456789") != std::string::npos) {
    throw Error(ErrorCode::kUsage, "--" + flag + " \"" + text + "\": a whole number or \"auto\" is expected");
  }
  const int64_t stages = whole_number(text, flag);
  if (stages < 1 || stages > kMostStages) {
    throw Error(ErrorCode::kUsage, "--" + flag + " " + text + ": at least 1 and at most " +
                                       std::to_string(kMostStages) + ", or \"auto\", is expected");
  }
  return {.stages = stages};
}

}  // namespace

void OverlapFlags::add_to(Flags& flags) {
  flags.add("stages", stages, Need::kOptional, "K|auto", "exchanges that remote keys are spread over");
  flags.add("backward-stages", backward_stages, Need::kOptional, "K|auto", "the same in backward; default: --stages");
  flags.add("keep-remote-keys", keep_remote_keys, "backward has kept the keys that arrived in forward");
}

OverlapOptions OverlapFlags::options(const Flags& flags) const {
  OverlapOptions overlap{.forward = parse_stages(stages, "stages"), .keep_remote_keys = keep_remote_keys};
  if (flags.given("backward-stages")) {
    if (keep_remote_keys) {
      throw Error(
          ErrorCode::kUsage,
          "--backward-stages beside --keep-remote-keys: kept keys lie as they arrived in forward; leave out one "
          "of the two");
    }
    overlap.backward = parse_stages(backward_stages, "backward-stages");
  }
  return overlap;
}

}  // namespace attnmux::tool
