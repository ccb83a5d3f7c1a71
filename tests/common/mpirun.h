// Programs under mpirun: more ranks than cores, all on this machine, each with one thread.
//
//   if (!mpirun_found()) GTEST_SKIP() << kNoMpirun;
//   const Launch launch = mpirun(2, ATTNMUX_BUILD_DIR "/tests/mpi_ranks cases");
//
// REQUIRES: ATTNMUX_MPIRUN, mpirun's path, empty where CMake found no MPI.
#pragma once

#include <sys/wait.h>

#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>
#include <vector>

#include "tests/common/temp_dir.h"

namespace attnmux::testing {

inline constexpr char kNoMpirun[] = "no mpirun; tools/setup installs it";

struct Launch {
  int status = -1;     // of the command; 124: ended by the time limit
  std::string output;  // stdout and stderr of all ranks
  std::vector<std::string> lines_with(const std::string& part) const {
    std::vector<std::string> found;
    std::istringstream lines(output);
    for (std::string line; std::getline(lines, line);) {
      if (line.find(part) != std::string::npos) found.push_back(line);
    }
    return found;
  }
};

inline Launch run_command(const std::string& command) {
  Launch launch;
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  char text[4096];
  for (size_t count; (count = std::fread(text, 1, sizeof text, pipe)) > 0;) launch.output.append(text, count);
  const int status = ::pclose(pipe);
  launch.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return launch;
}

inline bool mpirun_found() {
  static const bool found =
      !std::string(ATTNMUX_MPIRUN).empty() && run_command(ATTNMUX_MPIRUN " --version").status == 0;
  return found;
}

// `options`: further ones of mpirun, each with a blank behind it. Two launches of OpenMPI that begin and end at the same
// time meet in a folder that one makes and the other removes; each has its own here.
inline Launch mpirun(int32_t ranks, const std::string& command, const std::string& options = "") {
  const TempDir files;
  return run_command("TMPDIR=" + files.path() + " timeout 120 " ATTNMUX_MPIRUN
                     " --oversubscribe --allow-run-as-root --bind-to none -x OMP_NUM_THREADS=1 " +
                     options + "-n " + std::to_string(ranks) + " " + command);
}

}  // namespace attnmux::testing
