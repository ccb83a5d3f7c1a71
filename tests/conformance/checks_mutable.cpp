// Of the mutation test's program alone: the environment variable ATTNMUX_CHECK_WITHOUT names one check that is off.
#include <cstdlib>

#include "conformance/checks.h"

namespace attnmux::conformance {

bool is_enabled(Check check) {
  static const char* without = std::getenv("ATTNMUX_CHECK_WITHOUT");
  return without == nullptr || to_string(check) != without;
}

}  // namespace attnmux::conformance
