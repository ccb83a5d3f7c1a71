// Image files: any bytes give an Error or as many pixels as the image's size asks for.
#include <cstdlib>

#include "attnmux/error.h"
#include "models/io/image_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr int64_t kMaxPixels = 1 << 18;
  try {
    const attnmux::RgbImage image =
        attnmux::decode_image({reinterpret_cast<const char*>(data), size}, "fuzz", kMaxPixels);
    const auto [height, width] = image.size;
    if (height < 1 || width < 1 || height * width > kMaxPixels) std::abort();
    if (image.pixels.size() != static_cast<size_t>(height * width * 3)) std::abort();
  } catch (const attnmux::Error& error) {
    if (error.code() != attnmux::ErrorCode::kBadFile) std::abort();
  }
  return 0;
}
