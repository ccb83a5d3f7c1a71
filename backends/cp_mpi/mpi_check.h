// Turns a failed MPI call into an Error(kCommError).
#pragma once

#include <mpi.h>

#include <string>

#include "attnmux/error.h"

namespace attnmux {

inline void check_mpi(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw Error(ErrorCode::kCommError, std::string(call) + " failed: " + std::string(text, length));
}

}  // namespace attnmux
