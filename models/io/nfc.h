// Unicode's normalization form C: characters composed where they can be.
#pragma once

#include <string>
#include <string_view>

namespace attnmux {

// "e" and a combining acute become "é". REQUIRES: valid UTF-8. As `tokenizers` does it, but for 108 combining marks that
// are newer than Unicode 9: among several marks on one character, these are put in order here and left alone there.
std::string to_nfc(std::string_view text);

}  // namespace attnmux
