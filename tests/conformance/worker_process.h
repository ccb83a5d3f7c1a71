// A child process that loads the plugin, watched from outside: what it does to itself cannot stop, fake or blind the
// run.
//
//   WorkerProcess worker(job_json, {.plugin = file, .seconds = 60});
//   while (auto line = worker.next_line()) use(*line);     // records, as they come
//   WorkerEnd end = worker.end();
//
// The same program is executed again, never forked on: CUDA and thread pools do not survive a fork. Job and records go
// over a socket of their own; each record carries a secret that is part of the job and that stdout, stderr or another
// process does not know. What the plugin prints goes to a file that cannot grow beyond a megabyte. The child leads a
// process group, which is killed as a whole, and dies with this process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace attnmux::conformance {

struct WorkerOptions {
  std::string plugin;   // the file under test: the only plugin that the child finds by itself; empty: none
  double seconds = 60;  // from one record to the next
};

struct WorkerEnd {
  bool timed_out = false;
  bool clean = false;    // exited with status 0
  std::string how;       // "exit status 0", "signal 6 (Aborted)", "no sign of life for 60 s"
  std::string printed;   // the last lines that it wrote to stdout and stderr
  bool flooded = false;  // it printed more than is kept
};

class WorkerProcess {
 public:
  // `job` is one line. Throws Error(kIo) where no process can be started.
  WorkerProcess(const std::string& job, const WorkerOptions& options);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  // The next line that the child sent; nothing when it has ended, was silent for too long or sent nonsense without end.
  std::optional<std::string> next_line();

  // Ends the child if it still runs. Called once, after next_line() gave nothing or enough was read.
  WorkerEnd end();

 private:
  bool read_some(double seconds);

  WorkerOptions options_;
  pid_t child_ = -1;
  int socket_ = -1;
  std::string scratch_;  // the file with what it prints
  std::string buffer_;
  int64_t received_ = 0;
  bool timed_out_ = false;
};

// Flag of the program that makes it a worker, and the descriptor that it talks over.
inline constexpr char kWorkerFlag[] = "--worker";
inline constexpr int kWorkerDescriptor = 3;

// Bytes that a child may print, and of which the last are shown.
inline constexpr int64_t kMaxPrinted = 1 << 20;
inline constexpr size_t kShown = 2000;

// A child's environment: no plugin but the one under test, no settings of GoogleTest, threads that sleep.
std::vector<std::string> environment_of_child(const std::string& plugin);

// For execve(): of the texts, which stay where they are, and a null.
std::vector<char*> pointers(std::vector<std::string>& texts);

}  // namespace attnmux::conformance
