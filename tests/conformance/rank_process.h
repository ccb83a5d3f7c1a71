// One rank of a group as a process, started by mpirun on behalf of mpirun_launch.h.
//
// Lines over a socket whose path is an argument of the program. The job: {"secret", "group", "cp", "cases"}. Answers,
// each with the secret and the rank: {"end": i, "record"} for each case; {"done": true} when the plugin has shut down.
// The process ends when the other side closes the socket.
#pragma once

#include <string>

namespace attnmux::conformance {

// Flag of the program that makes it a rank; the socket's path stands behind it.
inline constexpr char kRankFlag[] = "--rank";

// The whole main() of a rank; does not return.
[[noreturn]] void run_rank(const std::string& socket_path);

}  // namespace attnmux::conformance
