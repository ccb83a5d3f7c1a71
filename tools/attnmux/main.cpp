// attnmux: one program, one command for each thing that the framework does. See tools/README.md.
#include <c10/util/Exception.h>

#include <cstring>
#include <functional>
#include <iostream>
#include <new>

#include "attnmux/error.h"
#include "attnmux/launch_mark.h"
#include "attnmux/log.h"
#include "attnmux/plugin_loader.h"
#include "attnmux/spelling.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

struct Command {
  const char* name;
  const char* about;
  int (*run)(const Arguments&);
};

constexpr Command kCommands[] = {
    {"train", "fine-tune a model by a TOML file, with checkpoints, metrics and a report", run_train},
    {"score", "log-likelihoods of a text under a model", run_score},
    {"explain", "which backend each attention module of a model gets, and why", run_explain},
    {"plan", "a mask: its area, its tile plan, pictures of it", run_plan},
    {"attend", "one attention call on tensors of your own, forward and backward", run_attend},
    {"bench", "attention throughput, several backends interleaved in one process", run_bench},
    {"plugins", "every directory searched for plugins, a verdict per file, what each registered", run_plugins},
    {"check", "certify a plugin, or write the template of one", run_check},
    {"doctor", "what was found on this machine, and what is missing for what", run_doctor},
};

std::string help() {
  std::string text = "attnmux COMMAND [flags]: masked attention through plugins, with masks that cannot get lost\n\n";
  for (const Command& command : kCommands) {
    text += "  " + std::string(command.name) + std::string(10 - std::strlen(command.name), ' ') + command.about + "\n";
  }
  return text +
         "\n`attnmux COMMAND --help` tells its flags, with examples. Answers go to stdout (with --json one JSON "
         "document\n"
         "and nothing else), everything else to stderr.\n"
         "Exit status: 0 done, 1 the work failed, 2 usage or config error, 3 nothing was executed, 4 a plugin could "
         "not "
         "be loaded.\n";
}

int run(const Arguments& arguments) {
  if (arguments.empty()) {
    std::cerr << help();
    return exit_status(ErrorCode::kUsage);
  }
  const std::string& name = arguments.front();
  if (name == "--help" || name == "-h" || name == "help") {
    std::cout << help();
    return 0;
  }
  if (name == "--version") {
    std::cout << "attnmux " << ATTNMUX_VERSION << "\n";
    return 0;
  }
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run({arguments.begin() + 1, arguments.end()});
  }
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  throw Error(ErrorCode::kUsage, unknown_word("command", name, names) + ". See `attnmux --help`");
}

// What stdout could not take, e.g. on a full disk, is a failure: a script would read half an answer.
void flush_answer() {
  std::cout.flush();
  if (!std::cout) throw Error(ErrorCode::kIo, "stdout could not take the answer (disk full, or closed by its reader)");
}

int report(const std::function<int()>& work) {
  try {
    return work();
  } catch (const Error& error) {
    log_error(error.what());
    return exit_status(error.code());
  } catch (const c10::AcceleratorError& error) {
    log_error(std::string("the GPU reports a fault: ") + error.what_without_backtrace() + fault_origin());
  } catch (const c10::Error& error) {
    log_error(std::string("LibTorch: ") + error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    log_error("out of memory");
  } catch (const std::exception& error) {
    log_error(error.what());
  }
  return exit_status(ErrorCode::kInternal);
}

}  // namespace
}  // namespace attnmux::tool

int main(int argc, char** argv) {
  using namespace attnmux;
  using namespace attnmux::tool;
  int status = report([&] {
    const int result = run({argv + 1, argv + argc});
    flush_answer();
    return result;
  });
  const int shutdown = report([] {
    shutdown_plugins();
    return 0;
  });
  return status != 0 ? status : shutdown;
}
