#include "conformance/rank_process.h"

#include <ATen/Parallel.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/launch.h"
#include "attnmux/log.h"
#include "attnmux/plugin_loader.h"
#include "conformance/case.h"
#include "conformance/line_channel.h"
#include "conformance/rank_cases.h"

namespace attnmux::conformance {
namespace {

using nlohmann::json;

int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0 || ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) ::_exit(2);
  return socket;
}

// Whoever started the launch may be gone, and mpirun not yet.
void end_with_the_other_side(int socket) {
  std::thread([socket] {
    char byte = 0;
    while (::recv(socket, &byte, 1, 0) > 0) {
    }
    ::_exit(3);
  }).detach();
}

class Rank {
 public:
  Rank(const LineChannel& channel, const json& job) : channel_(channel) {
    for (const json& text : job.at("cases")) cases_.push_back(parse_case(text.get<std::string>()));
    if (const auto launched = launched_rank()) rank_ = launched->rank;
  }

  void run(const CpGroupFactory& factory) {
    try {
      // Goes out of this scope by an exception where a case says so: that is how a group learns of a failed rank.
      const std::shared_ptr<CpGroup> group = factory.connect(options_of(cases_.front()));
      while (next_ < cases_.size()) {
        CaseResult result;
        const auto begin = std::chrono::steady_clock::now();
        const auto told = [&] {
          result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
          send_end(result);
        };
        try {
          run_rank_case(*group, cases_[next_], result);
        } catch (const InjectedFault&) {
          told();
          throw;
        }
        told();
        if (!result.bad()) continue;
        group->abort("a case of the conformance suite failed on this rank");
        return;
      }
    } catch (const InjectedFault&) {
    } catch (const std::exception& error) {
      CaseResult result;
      result.fail(Check::kGroupCall, std::string("connect() threw: ") + error.what());
      send_end(result);
    }
  }

  void send(json answer) const {
    answer["rank"] = rank_;
    channel_.send(std::move(answer));
  }

 private:
  void send_end(const CaseResult& result) { send({{"end", next_++}, {"record", to_record(result)}}); }

  const LineChannel& channel_;
  std::vector<Case> cases_;
  int32_t rank_ = -1;
  size_t next_ = 0;
};

}  // namespace

void run_rank(const std::string& socket_path) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int socket = connect_to(socket_path);
  const json job = json::parse(read_line(socket));
  const LineChannel channel(socket, job.at("secret"));
  end_with_the_other_side(socket);
  set_log_level(LogLevel::kWarning);
  at::set_num_threads(1);  // more ranks than cores
  try {
    Rank rank(channel, job);
    PluginRegistry registry;
    load_plugins({}, registry);
    rank.run(*registry.cp_group(job.at("group")));
    registry = PluginRegistry();
    shutdown_plugins();
    rank.send({{"done", true}});
  } catch (const std::exception& error) {
    log_error(error.what());
    ::_exit(1);
  }
  ::_exit(0);
}

}  // namespace attnmux::conformance
