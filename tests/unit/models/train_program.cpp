// A training run as a process of its own (under mpirun, as one of its ranks), which tests break:
//
//   train_program CONFIG.toml [--resume] [--fault KIND RANK POINT NUMBER] [KEY=VALUE]...
//
// KIND: throw, exit, kill (SIGKILL) or stall, what happens to RANK. POINT: "connect", before the ranks meet; a call to
// the group as FaultyGroup names it ("exchange", "wait for exchange"), the NUMBERth of that name; or "checkpoint":
// while it writes a file, once that has grown to NUMBER bytes (throw: the write fails, as on a full disk).
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "attnmux/launch.h"
#include "attnmux/plugin_loader.h"
#include "models/train/trainer.h"
#include "tests/common/cpu_backends.h"
#include "tests/common/faulty_group.h"

namespace attnmux::testing {
namespace {

struct Fault {
  std::string kind;  // empty: none
  int32_t rank = 0;
  std::string point;
  int64_t number = 0;
};

// By a signal handler, too: calls nothing but the system.
[[noreturn]] void end_process(char kind) {
  if (kind == 'e') ::_exit(7);
  if (kind == 'k') ::kill(::getpid(), SIGKILL);
  while (true) ::pause();
}

void happen(const Fault& fault) {
  if (fault.kind == "throw") throw Error(ErrorCode::kDeviceError, "out of luck");
  end_process(fault.kind.front());
}

char g_kind_of_write = 0;  // for the handler

void break_writes(const Fault& fault) {
  g_kind_of_write = fault.kind.front();
  std::signal(
      SIGXFSZ, fault.kind == "throw" ? SIG_IGN : [](int) { end_process(g_kind_of_write); });
  const rlimit size = {static_cast<rlim_t>(fault.number), static_cast<rlim_t>(fault.number)};
  setrlimit(RLIMIT_FSIZE, &size);
}

FaultPoint point_of(const Fault& fault) {
  // The group's works and subgroups have copies of this, and count together.
  return [fault, met = std::make_shared<int64_t>(0)](const std::string& point) {
    if (point == fault.point && ++*met == fault.number) happen(fault);
  };
}

// One rank of a transport fails.
class FaultyTransport final : public CpGroupFactory {
 public:
  FaultyTransport(std::shared_ptr<const CpGroupFactory> transport, Fault fault)
      : transport_(std::move(transport)), fault_(std::move(fault)) {}
  std::string id() const override { return transport_->id(); }
  std::string description() const override { return transport_->description(); }
  std::shared_ptr<CpGroup> connect(const CpGroupOptions& options) const override {
    const auto launched = launched_rank();
    if (!launched || launched->rank != fault_.rank) return transport_->connect(options);
    if (fault_.point == "connect") happen(fault_);
    std::shared_ptr<CpGroup> group = transport_->connect(options);
    if (fault_.point == "checkpoint") break_writes(fault_);
    return std::make_shared<FaultyGroup>(std::move(group), point_of(fault_));
  }

 private:
  std::shared_ptr<const CpGroupFactory> transport_;
  Fault fault_;
};

void train_with(const Fault& fault, TrainPlan plan) {
  const TrainHooks hooks{.on_step = [](const StepMetrics& metrics) { std::cout << to_json(metrics) << std::endl; },
                         .on_checkpoint = nullptr};
  if (fault.kind.empty()) {
    train(plan, hooks);
  } else if (plan.transport) {
    plan.transport = std::make_shared<FaultyTransport>(plan.transport, fault);
    train(plan, hooks);
  } else {
    if (fault.point == "checkpoint") break_writes(fault);
    const ParallelSection& parallel = plan.config.parallel;
    run_threads_group(static_cast<int32_t>(parallel.dp * parallel.cp),
                      {.deadline = std::chrono::seconds(parallel.deadline_s)}, [&](CpGroup& world) {
                        if (world.rank() != fault.rank) {
                          train(plan, hooks, world);
                          return;
                        }
                        FaultyGroup faulty(world, point_of(fault));
                        train(plan, hooks, faulty);
                      });
  }
}

void run(const std::vector<std::string>& arguments) {
  Resume resume = Resume::kNo;
  Fault fault;
  std::vector<std::string> sets;
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--resume") {
      resume = Resume::kYes;
    } else if (arguments[i] == "--fault") {
      fault = {arguments.at(i + 1), std::stoi(arguments.at(i + 2)), arguments.at(i + 3),
               std::stoll(arguments.at(i + 4))};
      i += 4;
    } else {
      sets.push_back(arguments[i]);
    }
  }
  const TrainConfig config = load_train_config(arguments.at(0), sets);
  PluginRegistry registry = cpu_backends();
  if (config.parallel.group != "threads") load_plugins({}, registry);  // ATTNMUX_PLUGIN_FILES: the transport alone
  const TrainPlan plan = plan_training(config, registry, resume);
  std::cout << describe(plan) << std::flush;
  train_with(fault, plan);
}

}  // namespace
}  // namespace attnmux::testing

int main(int argc, char** argv) {
  int status = 0;
  try {
    attnmux::testing::run({argv + 1, argv + argc});
  } catch (const attnmux::Error& error) {
    // In one piece: ranks share the stream.
    std::cerr << std::string(to_string(error.code())) + ": " + error.what() + "\n";
    status = attnmux::exit_status(error.code());
  }
  attnmux::shutdown_plugins();
  return status;
}
