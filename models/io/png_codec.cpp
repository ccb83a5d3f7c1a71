// PNG through libpng. libpng reports an error by longjmp, which runs no destructor: whatever is read into lives in a
// PngReading, made before setjmp, and between setjmp and the end of its function there are only plain values.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <vector>

#include "models/io/exif.h"
#include "models/io/image_codecs.h"

namespace attnmux {
namespace {

struct PngReading {
  std::string_view rest;
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::jmp_buf jump;
  char warning[128] = "";  // the last one: it says more than the error that follows
  char error[128] = "";

  explicit PngReading(std::string_view bytes) : rest(bytes) {}
  ~PngReading() { png_destroy_read_struct(&png, &info, nullptr); }
  PngReading(const PngReading&) = delete;
  PngReading& operator=(const PngReading&) = delete;

  std::string problem() const {
    return std::string("a PNG that cannot be read: ") + error + (warning[0] ? std::string(" (") + warning + ")" : "");
  }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto& reading = *static_cast<PngReading*>(png_get_error_ptr(png));
  std::snprintf(reading.error, sizeof reading.error, "%s", message);
  std::longjmp(reading.jump, 1);
}

void on_warning(png_structp png, png_const_charp message) {
  auto& reading = *static_cast<PngReading*>(png_get_error_ptr(png));
  std::snprintf(reading.warning, sizeof reading.warning, "%s", message);
}

void read_bytes(png_structp png, png_bytep to, size_t size) {
  auto& reading = *static_cast<PngReading*>(png_get_io_ptr(png));
  if (size > reading.rest.size()) png_error(png, "it is cut off, the file ends early");
  std::memcpy(to, reading.rest.data(), size);
  reading.rest.remove_prefix(size);
}

// Whether the file holds all of its chunks up to the last. libpng allocates what a chunk claims before it reads it.
bool is_whole(std::string_view bytes) {
  for (size_t at = 8; at + 12 <= bytes.size();) {
    const size_t length = png_get_uint_32(reinterpret_cast<const png_byte*>(bytes.data()) + at);
    if (length > bytes.size() - at - 12) return false;
    if (bytes.substr(at + 4, 4) == "IEND") return true;
    at += 12 + length;
  }
  return false;
}

bool read_header(PngReading& reading) {
  if (setjmp(reading.jump) != 0) return false;
  reading.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reading, on_error, on_warning);
  if (reading.png == nullptr) return false;
  reading.info = png_create_info_struct(reading.png);
  if (reading.info == nullptr) return false;
  png_set_read_fn(reading.png, &reading, read_bytes);
  png_set_crc_action(reading.png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  png_set_user_limits(reading.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // check_image_size has the limit
  // Encoders exist that declare too small a one.
  png_set_option(reading.png, PNG_MAXIMUM_INFLATE_WINDOW, PNG_OPTION_ON);
  png_read_info(reading.png, reading.info);
  return true;
}

bool is_grey_16(const PngReading& reading) {
  return png_get_bit_depth(reading.png, reading.info) == 16 &&
         png_get_color_type(reading.png, reading.info) == PNG_COLOR_TYPE_GRAY;
}

// Rows of RGB, or of grey samples of 16 bits.
bool read_rows(PngReading& reading, png_bytepp rows, size_t row_bytes) {
  if (setjmp(reading.jump) != 0) return false;
  const bool grey_16 = is_grey_16(reading);
  if (!grey_16) {
    png_set_strip_16(reading.png);
    png_set_palette_to_rgb(reading.png);
    png_set_gray_to_rgb(reading.png);
    png_set_strip_alpha(reading.png);
  }
  png_set_interlace_handling(reading.png);
  png_read_update_info(reading.png, reading.info);
  if (png_get_rowbytes(reading.png, reading.info) != row_bytes) png_error(reading.png, "rows of an unexpected length");
  png_read_image(reading.png, rows);
  png_read_end(reading.png, nullptr);
  return true;
}

// "\nexif\n    1234\n" and hexadecimal digits, as ImageMagick writes it.
std::string raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) text.remove_prefix(std::min(text.find('\n'), text.size() - 1) + 1);
  std::string bytes;
  int digits = 0;
  unsigned value = 0;
  for (const char c : text) {
    const unsigned digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
    if (digit == 16) continue;
    value = value * 16 + digit;
    if (++digits % 2 == 0) bytes.push_back(static_cast<char>(value & 0xff));
  }
  return bytes;
}

int read_orientation(const PngReading& reading) {
  png_uint_32 size = 0;
  png_bytep exif = nullptr;
  if (png_get_eXIf_1(reading.png, reading.info, &size, &exif) != 0) {
    if (const int found = exif_orientation({reinterpret_cast<const char*>(exif), size})) return found;
  }
  png_textp texts = nullptr;
  int count = 0, orientation = 1;
  png_get_text(reading.png, reading.info, &texts, &count);
  for (int i = 0; i < count; ++i) {
    const std::string_view key = texts[i].key;
    const size_t length =
        texts[i].compression >= PNG_ITXT_COMPRESSION_NONE ? texts[i].itxt_length : texts[i].text_length;
    const std::string_view text(texts[i].text, length);
    if (key == "Raw profile type exif" && exif == nullptr && !text.empty()) {
      if (const int found = exif_orientation(raw_profile(text))) return found;
    }
    if (key == "XML:com.adobe.xmp") orientation = std::max(orientation, xmp_orientation(text));
  }
  return orientation;
}

// Samples of 16 bits, high byte first, to RGB; cut at 255, as Pillow does.
void clip_grey(const std::vector<uint8_t>& samples, std::vector<uint8_t>& rgb) {
  for (size_t i = 0; i < samples.size() / 2; ++i) {
    const uint8_t value = samples[2 * i] > 0 ? 255 : samples[2 * i + 1];
    rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = value;
  }
}

}  // namespace

StoredImage decode_png(const ImageDecoding& decoding) {
  if (!is_whole(decoding.bytes)) fail_image(decoding, "a PNG that is cut off: a chunk ends beyond the file");
  PngReading reading(decoding.bytes);
  if (!read_header(reading)) fail_image(decoding, reading.problem());
  StoredImage stored;
  ImageSize& size = stored.image.size;
  size = {.height = png_get_image_height(reading.png, reading.info),
          .width = png_get_image_width(reading.png, reading.info)};
  check_image_size(decoding, size);
  stored.orientation = read_orientation(reading);
  if (decoding.part == ImagePart::kHeader) return stored;

  const bool grey_16 = is_grey_16(reading);
  const int64_t row_bytes = size.width * (grey_16 ? 2 : 3);
  std::vector<uint8_t> samples(size.height * row_bytes);
  std::vector<png_bytep> rows;
  for (int64_t y = 0; y < size.height; ++y) rows.push_back(samples.data() + y * row_bytes);
  if (!read_rows(reading, rows.data(), row_bytes)) fail_image(decoding, reading.problem());
  if (grey_16) {
    stored.image.pixels.resize(size.height * size.width * 3);
    clip_grey(samples, stored.image.pixels);
  } else {
    stored.image.pixels = std::move(samples);
  }
  return stored;
}

}  // namespace attnmux
