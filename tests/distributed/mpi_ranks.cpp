// What mpi_group_test starts under mpirun: one rank of group "mpi", taken from the plugin as the program does.
//
//   mpirun -n 4 mpi_ranks cases                       what every transport does, transport_cases.h
//   mpirun -n 3 mpi_ranks fault exchange stall 500    the middle rank fails at a call; deadline of 500 ms
//   mpirun -n 3 mpi_ranks mismatch                    one rank calls something else
//   mpirun -n 3 mpi_ranks chain 500                   rank 0 waits for 1, which waits for 2, which stalls
//   mpirun -n 2 mpi_ranks big 70                      an exchange of 70 MiB
//   mpirun -n 2 mpi_ranks overlap                     bytes move while the ranks compute
//
// Each rank prints one line, "rank 1: ok" or "rank 1: " and its error.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "attnmux/error.h"
#include "attnmux/launch.h"
#include "attnmux/plugin_loader.h"
#include "faults.h"
#include "transport_cases.h"

namespace attnmux::testing {
namespace {

using namespace std::chrono_literals;
using Arguments = std::vector<std::string>;

void run_cases(CpGroup& group) {
  for (const TransportCase& transport : transport_cases()) {
    try {
      transport.run(group);
    } catch (const std::exception& error) {
      throw std::runtime_error(transport.name + ": " + error.what());
    }
  }
}

void run_fault(CpGroup& group, const std::string& name, const std::string& fault) {
  group.barrier();
  std::this_thread::sleep_for(50ms);  // so that all ranks have left the barrier
  if (group.rank() == group.size() / 2) {
    if (fault == "throw") throw Error(ErrorCode::kNonFinite, "the loss is NaN");
    if (fault == "return") return;
    if (fault == "abort") return group.abort("the disk is full");
    if (fault == "exit") ::_exit(7);
    if (fault == "kill") ::kill(::getpid(), SIGKILL);
    if (fault == "stop") ::kill(::getpid(), SIGSTOP);
    if (fault == "stall") std::this_thread::sleep_for(1h);
  }
  for (const NamedCall& call : named_calls()) {
    if (call.name == name) call.call(group);
  }
}

void run_mismatch(CpGroup& group) {
  if (group.rank() == 1) {
    group.barrier();
  } else {
    exchange_with_all(group);
  }
  group.barrier();
}

std::unique_ptr<Work> trade_with(CpGroup& group, int32_t other, int64_t elements = 1) {
  std::vector<at::Tensor> send(group.size()), receive(group.size());
  send[other] = at::ones({elements});
  receive[other] = at::empty({elements});
  return group.exchange(send, receive);
}

void run_chain(CpGroup& group) {
  if (group.rank() == 2) std::this_thread::sleep_for(1h);
  if (group.rank() == 1) {
    std::this_thread::sleep_for(100ms);  // rank 0 is the first whose deadline passes
    trade_with(group, 2)->wait();
  }
  trade_with(group, 1 - group.rank())->wait();
}

// A tensor that needs several messages, each mebibyte with a value of its own.
void run_big(CpGroup& group, int64_t mebibytes) {
  const int64_t bytes = (mebibytes << 20) + 1;
  std::vector<at::Tensor> send(2), receive(2);
  at::Tensor big = at::zeros({bytes}, at::kByte);
  const auto each_mebibyte = [&](const auto& function) {
    for (int64_t at = 0; at < bytes; at += 1 << 20) function(big.slice(0, at, at + (1 << 20)), (at >> 20) % 251 + 1);
  };
  if (group.rank() == 0) {
    each_mebibyte([](at::Tensor part, int64_t value) { part.fill_(value); });
    send[1] = big;
  } else {
    receive[0] = big;
  }
  group.exchange(send, receive)->wait();
  if (group.rank() == 0)
    return require(group.elements_sent() == bytes, Promise::kCount, "elements that were really sent");
  each_mebibyte([](const at::Tensor& part, int64_t value) {
    require((part == value).all().item<bool>(), Promise::kBytes, "the mebibyte of value " + std::to_string(value));
  });
}

void run_overlap(CpGroup& group, const std::atomic<int>& calls_done) {
  const std::unique_ptr<Work> work = trade_with(group, 1 - group.rank(), 1 << 20);
  while (calls_done == 0) std::this_thread::sleep_for(1ms);  // a hang here is the failure
  work->wait();
}

std::string run(const Arguments& arguments) {
  PluginRegistry registry;
  load_plugins({.files = {ATTNMUX_MPI_PLUGIN}, .relative_to = ""}, registry);
  const std::string& what = arguments.at(0);
  std::atomic<int> calls_done = 0;
  CpGroupOptions options{.deadline = 1h, .observer = [&](const CpEvent&) { ++calls_done; }};
  if (what == "fault" && arguments.size() > 3) options.deadline = std::chrono::milliseconds(std::stoi(arguments[3]));
  if (what == "chain") options.deadline = std::chrono::milliseconds(std::stoi(arguments.at(1)));
  try {
    const std::shared_ptr<CpGroup> group = registry.cp_group("mpi")->connect(options);
    if (what == "cases") run_cases(*group);
    if (what == "fault") run_fault(*group, arguments.at(1), arguments.at(2));
    if (what == "mismatch") run_mismatch(*group);
    if (what == "chain") run_chain(*group);
    if (what == "big") run_big(*group, std::stoi(arguments.at(1)));
    if (what == "overlap") run_overlap(*group, calls_done);
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "ok";
}

}  // namespace
}  // namespace attnmux::testing

int main(int argc, char** argv) {
  const std::string said = attnmux::testing::run({argv + 1, argv + argc});
  const std::optional<attnmux::LaunchedRank> launched = attnmux::launched_rank();
  const std::string line = "rank " + (launched ? std::to_string(launched->rank) : "?") + ": " + said + "\n";
  std::fputs(line.c_str(), stdout);
  std::fflush(stdout);
  attnmux::shutdown_plugins();
  return said == "ok" ? 0 : 1;
}
