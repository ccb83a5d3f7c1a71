// From the interface's Prepared back to the backend's own type.
#pragma once

#include <string>
#include <string_view>

#include "attnmux/backend.h"
#include "attnmux/error.h"

namespace attnmux {

// Throws Error(kContractBroken) for a Prepared that another backend made.
template <class T>
const T& prepared_as(const Prepared& prepared, std::string_view backend) {
  const T* own = dynamic_cast<const T*>(&prepared);
  if (own == nullptr) {
    throw Error(ErrorCode::kContractBroken, std::string(backend) +
                                                ": called with a mask that another backend prepared; "
                                                "pass what this backend's prepare() returned");
  }
  return *own;
}

}  // namespace attnmux
