#include "tools/attnmux/dispatch_flags.h"

#include <algorithm>
#include <string>

#include "attnmux/error.h"

namespace attnmux::tool {

void DispatchFlags::add_to(Flags& flags) {
  flags.add("cp", cp, "N", "ranks that share the sequence");
  flags.add("chunk-size", chunk_size, "C", "tokens a chunk; the last may be shorter");
}

DispatchOptions DispatchFlags::options(const Flags& flags, int64_t queries) const {
  if (cp < 1 || cp > kMostRanks) {
    throw Error(ErrorCode::kUsage,
                "--cp " + std::to_string(cp) + ": at least 1 rank is expected, at most " + std::to_string(kMostRanks));
  }
  const int64_t share = std::max<int64_t>((queries + cp - 1) / cp, 1);
  const bool given = flags.given("chunk-size");
  if (given && (chunk_size < 1 || chunk_size > std::max<int64_t>(queries, 1))) {
    throw Error(ErrorCode::kUsage, "--chunk-size " + std::to_string(chunk_size) + ": from 1 to the sequence's " +
                                       std::to_string(queries) + " queries is expected; " + std::to_string(cp) +
                                       " ranks have a chunk each with at most " + std::to_string(share));
  }
  return {.cp = cp, .chunk_size = given || cp == 1 || queries >= chunk_size ? chunk_size : share};
}

}  // namespace attnmux::tool
