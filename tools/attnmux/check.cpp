// `attnmux check` is a program of its own, attnmux-check beside this one: it brings GoogleTest and an allocator that
// counts, which no other command wants.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "attnmux/error.h"
#include "tools/attnmux/command.h"

namespace attnmux::tool {

int run_check(const Arguments& arguments) {
  const std::filesystem::path program = std::filesystem::canonical("/proc/self/exe").parent_path() / "attnmux-check";
  Arguments words = arguments;
  std::string name = program.string();
  std::vector<char*> argv{name.data()};
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(name.c_str(), argv.data());
  throw Error(ErrorCode::kIo, name + ": cannot be executed: " + std::strerror(errno) +
                                        ". It is installed beside this program; install attnmux again.");
}

}  // namespace attnmux::tool
