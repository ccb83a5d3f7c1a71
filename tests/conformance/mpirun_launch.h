// Ranks as processes that mpirun starts, each of which runs rank_process.h, and what they say.
//
//   MpirunLaunch launch(3, job_json);
//   RankEvent event = launch.next(60);     // a line that a rank sent, a rank that ended, silence
//
// At the end of the object none of them is left. What they print goes where this process prints, up to kMaxPrinted
// bytes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace attnmux::conformance {

// Where mpirun lies. Throws Error(kUsage) naming the package.
std::string find_mpirun();

struct RankEvent {
  enum class Kind {
    kLine,    // a rank sent one
    kEnded,   // a rank's process ended
    kOver,    // so did mpirun, and nothing is left to read
    kSilent,  // nothing came for so long
  } kind;
  std::string line;
};

struct LaunchEnd {
  std::string printed;   // the last lines that any of them wrote to stdout and stderr
  bool flooded = false;  // they printed more than kMaxPrinted
};

class MpirunLaunch {
 public:
  // `job` is one line, sent to every rank; `plugin` the only one that they find. Throws Error(kIo) where no process can
  // be started.
  MpirunLaunch(int64_t ranks, std::string job, const std::string& plugin);
  ~MpirunLaunch();
  MpirunLaunch(const MpirunLaunch&) = delete;
  MpirunLaunch& operator=(const MpirunLaunch&) = delete;

  RankEvent next(double seconds);

  // Ends those that still run. Called once.
  LaunchEnd end();

 private:
  struct Connection {
    int socket = -1;
    std::string buffer;
  };
  void start(const std::string& path, const std::string& plugin);
  bool launcher_ended() const;
  bool wait_for_launcher();
  void drain();
  bool read_some(int milliseconds);
  void greet();
  void read(Connection& connection);
  void ended(Connection& connection);

  int64_t ranks_;
  std::string job_, folder_;
  int listener_ = -1, pipe_ = -1;
  pid_t launcher_ = -1;
  std::string printed_last_;
  int64_t printed_bytes_ = 0;
  std::vector<Connection> connections_;
  std::deque<std::string> lines_;
  int ends_ = 0;  // of ranks' processes, not told yet
};

}  // namespace attnmux::conformance
