// Runs build/bin/attnmux as a user would: a process with arguments, an environment, and files for what it prints.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "tests/common/temp_dir.h"

namespace attnmux::testing {

struct Finished {
  int status = -1;  // exit status; 128 + signal where a signal ended it
  std::string out;
  std::string err;
};

struct RunOptions {
  std::string stdout_file;                         // empty: captured
  std::map<std::string, std::string> environment;  // added to the test's own
  int64_t largest_file = 0;                        // bytes that any file may reach, as on a full disk; 0: no limit
  std::string folder;                              // working directory; empty: the test's
  std::vector<std::string> launcher;               // command that starts the program, "mpirun -n 2"
};

inline std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

inline Finished run_program(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  const TempDir captured;
  const std::string program = std::string(ATTNMUX_BUILD_DIR) + "/bin/attnmux";
  const std::string out = options.stdout_file.empty() ? captured.file("out") : options.stdout_file;
  const std::string err = captured.file("err");
  const pid_t child = ::fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (const std::string& word : options.launcher) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(const_cast<char*>(program.c_str()));
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    if (!options.folder.empty() && ::chdir(options.folder.c_str()) != 0) ::_exit(126);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0666), 1);
    ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0666), 2);
    for (const auto& [name, value] : options.environment) ::setenv(name.c_str(), value.c_str(), 1);
    if (options.largest_file > 0) {
      const rlimit limit{static_cast<rlim_t>(options.largest_file), static_cast<rlim_t>(options.largest_file)};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      ::signal(SIGXFSZ, SIG_IGN);  // the write fails, as it would on a full disk
    }
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .out = options.stdout_file.empty() ? contents(out) : "",
          .err = contents(err)};
}

}  // namespace attnmux::testing
