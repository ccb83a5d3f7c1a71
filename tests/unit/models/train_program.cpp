// A training run as a process of its own, which tests kill: train_program CONFIG.toml [--resume] [KEY=VALUE]...
//
// Environment: ATTNMUX_TEST_FILE_LIMIT, the size in bytes at which any file of this process refuses to grow; by default
// the system then kills the process in the middle of its write, with ATTNMUX_TEST_FILE_LIMIT_ERROR set the write fails,
// as on a full disk.
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "attnmux/error.h"
#include "models/train/trainer.h"
#include "tests/common/cpu_backends.h"

namespace {

void limit_file_size() {
  const char* limit = std::getenv("ATTNMUX_TEST_FILE_LIMIT");
  if (limit == nullptr) return;
  if (std::getenv("ATTNMUX_TEST_FILE_LIMIT_ERROR") != nullptr) std::signal(SIGXFSZ, SIG_IGN);
  const rlim_t bytes = std::strtoull(limit, nullptr, 10);
  const rlimit core = {0, 0}, size = {bytes, bytes};
  setrlimit(RLIMIT_CORE, &core);
  setrlimit(RLIMIT_FSIZE, &size);
}

}  // namespace

int main(int argc, char** argv) {
  limit_file_size();
  attnmux::Resume resume = attnmux::Resume::kNo;
  std::vector<std::string> sets;
  for (int i = 2; i < argc; ++i) {
    if (std::string(argv[i]) == "--resume") {
      resume = attnmux::Resume::kYes;
    } else {
      sets.emplace_back(argv[i]);
    }
  }
  try {
    const attnmux::TrainConfig config = attnmux::load_train_config(argv[1], sets);
    const attnmux::PluginRegistry registry = attnmux::testing::cpu_backends();
    const attnmux::TrainPlan plan = attnmux::plan_training(config, registry, resume);
    std::cout << describe(plan) << std::flush;
    train(plan, {.on_step = [](const attnmux::StepMetrics& metrics) { std::cout << to_json(metrics) << std::endl; },
                 .on_checkpoint = nullptr});
  } catch (const attnmux::Error& error) {
    std::cerr << to_string(error.code()) << ": " << error.what() << "\n";
    return attnmux::exit_status(error.code());
  }
  return 0;
}
