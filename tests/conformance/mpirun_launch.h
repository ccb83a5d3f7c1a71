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

class MpirunLaunch {
 public:
  // `job` is one line, sent to every rank. Throws Error(kIo) where no process can be started.
  MpirunLaunch(int64_t ranks, std::string job);
  ~MpirunLaunch();
  MpirunLaunch(const MpirunLaunch&) = delete;
  MpirunLaunch& operator=(const MpirunLaunch&) = delete;

  RankEvent next(double seconds);

 private:
  struct Connection {
    int socket = -1;
    std::string buffer;
  };
  void start(const std::string& path);
  bool launcher_ended() const;
  bool wait_for_launcher();
  void drain();
  bool read_some(int milliseconds);
  void greet();
  void read(Connection& connection);
  void ended(Connection& connection);

  int64_t ranks_;
  std::string job_, folder_;
  int listener_ = -1, printed_ = -1;
  pid_t launcher_ = -1;
  int64_t passed_on_ = 0;  // bytes of what they print
  std::vector<Connection> connections_;
  std::deque<std::string> lines_;
  int ends_ = 0;  // of ranks' processes, not told yet
};

}  // namespace attnmux::conformance
