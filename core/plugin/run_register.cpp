#include <c10/util/Exception.h>

#include <new>

#include "attnmux/plugin.h"

namespace attnmux {

Registrar::~Registrar() = default;

StatusCode run_register(RegisterFunction function, const HostApi* host, Registrar* registrar) noexcept {
  try {
    function(*host, *registrar);
    return StatusCode::kOk;
  } catch (const c10::Error& error) {
    host->explain(host->context, error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    host->explain(host->context, "out of memory");
    return StatusCode::kOutOfMemory;
  } catch (const std::exception& error) {
    host->explain(host->context, error.what());
  } catch (...) {  // the C door lets nothing through; what it is cannot be known
    host->explain(host->context, "an exception that is no std::exception");
  }
  return StatusCode::kFailed;
}

}  // namespace attnmux
