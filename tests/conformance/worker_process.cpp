#include "conformance/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "attnmux/error.h"

namespace attnmux::conformance {
namespace {

constexpr int64_t kMaxReceived = 256 << 20;  // records of an honest worker are far below

Error system_error(const std::string& what) { return {ErrorCode::kIo, what + ": " + std::strerror(errno)}; }

// Between fork and exec: system calls alone.
[[noreturn]] void become_worker(int socket, int printed, char* const* arguments, char* const* environment) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::dup2(printed, 1);
  ::dup2(printed, 2);
  if (socket == kWorkerDescriptor) {
    ::fcntl(socket, F_SETFD, 0);
  } else {
    ::dup2(socket, kWorkerDescriptor);
  }
  const rlimit file{kMaxPrinted, kMaxPrinted}, core{0, 0};
  ::setrlimit(RLIMIT_FSIZE, &file);
  ::setrlimit(RLIMIT_CORE, &core);
  ::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit fails instead of ending the process
  ::execve("/proc/self/exe", arguments, environment);
  ::_exit(127);
}

std::string tail_of(const std::string& file) {
  std::ifstream stream(file, std::ios::binary | std::ios::ate);
  const auto size = static_cast<size_t>(std::max<std::streamoff>(0, stream.tellg()));
  const size_t shown = std::min(size, kShown);
  std::string text(shown, '\0');
  stream.seekg(static_cast<std::streamoff>(size - shown));
  stream.read(text.data(), static_cast<std::streamsize>(shown));
  return text;
}

}  // namespace

std::vector<std::string> environment_of_child(const std::string& plugin) {
  std::vector<std::string> result;
  bool policy = false;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (text.starts_with("GTEST_") || text.starts_with("TEST_") || text.starts_with("ATTNMUX_PLUGIN_")) continue;
    policy |= text.starts_with("OMP_WAIT_POLICY=");
    result.push_back(text);
  }
  result.push_back("ATTNMUX_PLUGIN_FILES=" + plugin);
  if (!policy) result.emplace_back("OMP_WAIT_POLICY=passive");
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

WorkerProcess::WorkerProcess(const std::string& job, const WorkerOptions& options) : options_(options) {
  scratch_ = (std::filesystem::temp_directory_path() / "attnmux-check-XXXXXX").string();
  const int printed = ::mkostemp(scratch_.data(), O_CLOEXEC | O_APPEND);
  if (printed < 0) throw system_error("no file in " + std::filesystem::temp_directory_path().string());
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) throw system_error("no socket");
  std::vector<std::string> arguments = {"attnmux-check", kWorkerFlag},
                           environment = environment_of_child(options.plugin);
  const std::vector<char*> argv = pointers(arguments), envp = pointers(environment);
  child_ = ::fork();
  if (child_ == 0) become_worker(sockets[1], printed, argv.data(), envp.data());
  ::close(sockets[1]);
  ::close(printed);
  if (child_ < 0) throw system_error("no process can be started");
  socket_ = sockets[0];
  const std::string line = job + "\n";
  for (size_t sent = 0; sent < line.size();) {
    const ssize_t more = ::send(socket_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
    if (more <= 0 && errno != EINTR) break;  // it has ended already: next_line() says so
    if (more > 0) sent += static_cast<size_t>(more);
  }
}

WorkerProcess::~WorkerProcess() {
  if (child_ > 0) end();
}

bool WorkerProcess::read_some(double seconds) {
  pollfd wait{socket_, POLLIN, 0};
  const int ready = ::poll(&wait, 1, static_cast<int>(seconds * 1000));
  if (ready < 0) return errno == EINTR;
  if (ready == 0) return true;
  char bytes[65536];
  const ssize_t got = ::recv(socket_, bytes, sizeof bytes, 0);
  if (got < 0) return errno == EINTR;
  buffer_.append(bytes, static_cast<size_t>(got));
  received_ += got;
  return got > 0 && received_ <= kMaxReceived;
}

std::optional<std::string> WorkerProcess::next_line() {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  bool open = true;
  for (;;) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      std::string line = buffer_.substr(0, end);
      buffer_.erase(0, end + 1);
      return line;
    }
    if (!open) return std::nullopt;
    const double left = options_.seconds - std::chrono::duration<double>(Clock::now() - begin).count();
    if (left <= 0) {
      timed_out_ = true;
      return std::nullopt;
    }
    // A process that the child left behind may keep the socket open: its end is looked for, too.
    siginfo_t ended{};
    const bool over =
        ::waitid(P_PID, static_cast<id_t>(child_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid == child_;
    open = read_some(over ? 0 : std::min(left, 0.05)) && !(over && buffer_.find('\n') == std::string::npos);
  }
}

WorkerEnd WorkerProcess::end() {
  // A child that is done ends by itself; one that is not gets no more time than a case.
  int status = 0;
  const auto deadline =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(timed_out_ ? 0 : options_.seconds);
  pid_t ended = 0;
  while ((ended = ::waitpid(child_, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < deadline) {
    ::usleep(2000);
  }
  if (ended == 0) timed_out_ = true;
  ::kill(-child_, SIGKILL);  // and whatever it started
  if (ended == 0) ::waitpid(child_, &status, 0);
  child_ = -1;
  ::close(socket_);
  WorkerEnd result;
  result.timed_out = timed_out_;
  result.printed = tail_of(scratch_);
  std::error_code ignored;
  result.flooded = std::filesystem::file_size(scratch_, ignored) >= kMaxPrinted;
  ::unlink(scratch_.c_str());
  if (timed_out_) {
    result.how = "no sign of life for " + std::to_string(static_cast<int64_t>(options_.seconds)) + " s";
  } else if (WIFSIGNALED(status)) {
    result.how = "signal " + std::to_string(WTERMSIG(status)) + " (" + ::strsignal(WTERMSIG(status)) + ")";
  } else {
    result.how = "exit status " + std::to_string(WEXITSTATUS(status));
    result.clean = WEXITSTATUS(status) == 0;
  }
  return result;
}

}  // namespace attnmux::conformance
