// Calls a function that no library defines: must fail when it is loaded, not in the first call.
#include "stub_backend.h"

namespace attnmux {
AttentionBackend* made_by_nobody();
}

namespace {

void register_undefined(const attnmux::HostApi&, attnmux::Registrar& registrar) {
  registrar.add_backend(std::shared_ptr<const attnmux::AttentionBackend>(attnmux::made_by_nobody()));
}

}  // namespace

ATTNMUX_PLUGIN("undefined_symbol", "1.2.3", "attnmux tests", register_undefined)
