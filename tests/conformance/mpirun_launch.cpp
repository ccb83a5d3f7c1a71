#include "conformance/mpirun_launch.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "attnmux/error.h"
#include "conformance/rank_process.h"
#include "conformance/worker_process.h"

namespace attnmux::conformance {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kPatienceMs = 3000;  // with an mpirun that is to end
constexpr int kPollMs = 50;
constexpr int64_t kMaxLine = 16 << 20;  // bytes without a line's end, from a rank that talks nonsense

Error system_error(const std::string& what) { return {ErrorCode::kIo, what + ": " + std::strerror(errno)}; }

}  // namespace

std::string find_mpirun() {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string file = folder + "/mpirun";
    if (!folder.empty() && ::access(file.c_str(), X_OK) == 0) return file;
  }
  throw Error(ErrorCode::kUsage,
              "the ranks of this group are processes, and there is no mpirun on the PATH to start them; install "
              "openmpi-bin");
}

MpirunLaunch::MpirunLaunch(int64_t ranks, std::string job, const std::string& plugin)
    : ranks_(ranks), job_(std::move(job)) {
  folder_ = (fs::temp_directory_path() / "attnmux-ranks-XXXXXX").string();
  if (::mkdtemp(folder_.data()) == nullptr) throw system_error("no folder in " + fs::temp_directory_path().string());
  const std::string path = folder_ + "/socket";
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    throw Error(ErrorCode::kUsage, path + " is too long for a socket; set TMPDIR to a shorter folder");
  }
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener_ < 0 || ::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, static_cast<int>(ranks)) != 0) {
    throw system_error("no socket at " + path);
  }
  start(path, plugin);
}

MpirunLaunch::~MpirunLaunch() {
  if (launcher_ > 0) end();
}

LaunchEnd MpirunLaunch::end() {
  for (const Connection& connection : connections_) {
    if (connection.socket >= 0) ::close(connection.socket);  // the rank ends, if it has not yet
  }
  if (listener_ >= 0) ::close(listener_);
  // mpirun ends when its ranks have; it tidies up behind itself, unless it has to be killed.
  if (!wait_for_launcher() && ::kill(launcher_, SIGTERM) == 0 && !wait_for_launcher()) ::kill(launcher_, SIGKILL);
  ::waitpid(launcher_, nullptr, 0);
  launcher_ = -1;
  drain();
  if (pipe_ >= 0) ::close(pipe_);
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
  return {printed_last_, printed_bytes_ > kMaxPrinted};
}

RankEvent MpirunLaunch::next(double seconds) {
  const auto begin = Clock::now();
  for (;;) {
    if (!lines_.empty()) {
      RankEvent event{RankEvent::Kind::kLine, std::move(lines_.front())};
      lines_.pop_front();
      return event;
    }
    if (ends_ > 0) {
      --ends_;
      return {RankEvent::Kind::kEnded, ""};
    }
    const bool over = launcher_ended();
    if (read_some(over ? 0 : kPollMs)) continue;
    if (over) return {RankEvent::Kind::kOver, ""};
    if (std::chrono::duration<double>(Clock::now() - begin).count() > seconds) return {RankEvent::Kind::kSilent, ""};
  }
}

void MpirunLaunch::start(const std::string& path, const std::string& plugin) {
  const std::string program = fs::canonical("/proc/self/exe").string(), ranks = std::to_string(ranks_);
  std::vector<std::string> words = {
      find_mpirun(), "--oversubscribe", "--allow-run-as-root", "--bind-to", "none", "-n", ranks, program, kRankFlag,
      path};
  std::vector<std::string> environment = environment_of_child(plugin);
  // Two launches of OpenMPI that begin and end at the same time meet in a folder that one makes and the other removes.
  std::erase_if(environment, [](const std::string& variable) { return variable.starts_with("TMPDIR="); });
  environment.push_back("TMPDIR=" + folder_);
  const std::vector<char*> argv = pointers(words), envp = pointers(environment);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) throw system_error("no pipe");
  launcher_ = ::fork();
  if (launcher_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(pipe[1], 1);
    ::dup2(pipe[1], 2);
    const rlimit core{0, 0};
    ::setrlimit(RLIMIT_CORE, &core);
    ::execve(argv[0], argv.data(), envp.data());
    ::_exit(127);
  }
  ::close(pipe[1]);
  pipe_ = pipe[0];
  ::fcntl(pipe_, F_SETFL, O_NONBLOCK);
  if (launcher_ < 0) throw system_error("no process can be started");
}

bool MpirunLaunch::launcher_ended() const {
  siginfo_t ended{};
  return ::waitid(P_PID, static_cast<id_t>(launcher_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == launcher_;
}

bool MpirunLaunch::wait_for_launcher() {
  for (int waited = 0; !launcher_ended() && waited < kPatienceMs; waited += 5) {
    drain();  // it would wait for its reader otherwise
    ::usleep(5000);
  }
  return launcher_ended();
}

// What mpirun and its ranks print: the last of it is kept.
void MpirunLaunch::drain() {
  constexpr int kMostReads = 64;  // who prints without end must not keep this process from looking at the time
  char bytes[65536];
  ssize_t got = 1;
  for (int i = 0; i < kMostReads && pipe_ >= 0 && (got = ::read(pipe_, bytes, sizeof bytes)) > 0; ++i) {
    printed_bytes_ += got;
    printed_last_.append(bytes, static_cast<size_t>(got));
    if (printed_last_.size() > kShown) printed_last_.erase(0, printed_last_.size() - kShown);
  }
  if (got != 0 || pipe_ < 0) return;
  ::close(pipe_);
  pipe_ = -1;  // poll() passes over it
}

// False where no rank had anything to say.
bool MpirunLaunch::read_some(int milliseconds) {
  std::vector<pollfd> waits = {{listener_, POLLIN, 0}, {pipe_, POLLIN, 0}};
  for (const Connection& connection : connections_) waits.push_back({connection.socket, POLLIN, 0});
  if (::poll(waits.data(), waits.size(), milliseconds) <= 0) return false;
  drain();
  bool any = false;
  for (size_t i = 2; i < waits.size(); ++i) {
    if (waits[i].revents == 0) continue;
    read(connections_[i - 2]);
    any = true;
  }
  if (waits[0].revents == 0) return any;
  greet();
  return true;
}

void MpirunLaunch::greet() {
  const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (socket < 0) return;
  connections_.push_back({socket, ""});
  if (static_cast<int64_t>(connections_.size()) == ranks_) {
    ::close(listener_);  // nobody else is to hear the job
    listener_ = -1;
  }
  const std::string line = job_ + "\n";
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t more = ::send(socket, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (more <= 0) return;  // its end shows when it is read
    sent += static_cast<size_t>(more);
  }
}

void MpirunLaunch::read(Connection& connection) {
  char bytes[65536];
  const ssize_t got = ::recv(connection.socket, bytes, sizeof bytes, 0);
  if (got < 0 && errno == EINTR) return;
  if (got <= 0) {
    ended(connection);
    return;
  }
  connection.buffer.append(bytes, static_cast<size_t>(got));
  for (size_t end; (end = connection.buffer.find('\n')) != std::string::npos;) {
    lines_.push_back(connection.buffer.substr(0, end));
    connection.buffer.erase(0, end + 1);
  }
  if (static_cast<int64_t>(connection.buffer.size()) > kMaxLine) ended(connection);
}

void MpirunLaunch::ended(Connection& connection) {
  ::close(connection.socket);
  connection.socket = -1;
  ++ends_;
}

}  // namespace attnmux::conformance
