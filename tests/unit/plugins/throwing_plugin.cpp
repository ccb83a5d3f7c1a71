// Its registration fails as the environment variable ATTNMUX_TEST_THROW asks.
#include <c10/util/Exception.h>

#include <cstdlib>
#include <new>
#include <stdexcept>

#include "stub_backend.h"

namespace {

void register_badly(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  const char* variable = std::getenv("ATTNMUX_TEST_THROW");
  const std::string what = variable == nullptr ? "" : variable;
  registrar.add_backend(std::make_shared<attnmux::StubBackend>("throwing"));  // must not stay registered
  if (what == "c10") TORCH_CHECK(false, "no tensor for you");
  if (what == "bad_alloc") throw std::bad_alloc();
  if (what == "runtime_error") throw std::runtime_error("the moon is full");
  if (what == "int") throw 42;
  if (what == "id_case") registrar.add_backend(std::make_shared<attnmux::StubBackend>("Upper"));
  if (what == "id_twice") registrar.add_backend(std::make_shared<attnmux::StubBackend>("throwing"));
  if (what == "null") registrar.add_backend(nullptr);
  if (what == "group_id_case") registrar.add_cp_group(std::make_shared<attnmux::StubGroup>("Upper"));
  if (what == "group_id_twice") {
    for (int i = 0; i < 2; ++i) registrar.add_cp_group(std::make_shared<attnmux::StubGroup>("throwing"));
  }
  if (what == "null_group") registrar.add_cp_group(nullptr);
}

}  // namespace

ATTNMUX_PLUGIN("throwing", "1.2.3", "attnmux tests", register_badly)
