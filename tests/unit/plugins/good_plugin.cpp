// Loads: registers backends of the ids in STUB_IDS and groups of those in STUB_GROUPS; its shutdown appends the
// plugin's id to the environment variable ATTNMUX_TEST_SHUTDOWN, where the test reads the order.
#include <cstdlib>
#include <sstream>

#include "stub_backend.h"

#ifndef STUB_GROUPS
#define STUB_GROUPS ""
#endif

namespace {

void register_stubs(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  std::istringstream ids(STUB_IDS);
  for (std::string id; ids >> id;) registrar.add_backend(std::make_shared<attnmux::StubBackend>(id));
  std::istringstream groups(STUB_GROUPS);
  for (std::string id; groups >> id;) registrar.add_cp_group(std::make_shared<attnmux::StubGroup>(id));
}

void note_shutdown() noexcept {
  const char* before = std::getenv("ATTNMUX_TEST_SHUTDOWN");
  ::setenv("ATTNMUX_TEST_SHUTDOWN", (std::string(before == nullptr ? "" : before) + PLUGIN_ID + ";").c_str(), 1);
}

}  // namespace

ATTNMUX_PLUGIN(PLUGIN_ID, "1.2.3", "attnmux tests", register_stubs, note_shutdown)
