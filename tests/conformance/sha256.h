// SHA-256 of a file (FIPS 180-4), which names the plugin in its scorecard.
#pragma once

#include <string>
#include <string_view>

namespace attnmux::conformance {

std::string sha256(std::string_view bytes);           // 64 hexadecimal digits
std::string sha256_of_file(const std::string& file);  // throws Error(kNotFound)

}  // namespace attnmux::conformance
