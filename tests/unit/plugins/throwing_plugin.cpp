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
}

}  // namespace

ATTNMUX_PLUGIN("throwing", "1.2.3", "attnmux tests", register_badly)
