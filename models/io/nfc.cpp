#include "models/io/nfc.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "attnmux/error.h"

namespace attnmux {

std::string to_nfc(std::string_view text) {
  utf8proc_uint8_t* data = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &data, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(data, std::free);
  if (size < 0) throw Error(ErrorCode::kInternal, std::string("NFC normalization failed: ") + utf8proc_errmsg(size));
  return {reinterpret_cast<const char*>(data), static_cast<size_t>(size)};
}

}  // namespace attnmux
