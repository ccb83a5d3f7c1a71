// JPEG through libjpeg-turbo. It reports an error by longjmp, which runs no destructor: whatever is read into lives in
// a JpegReading, made before setjmp, and between setjmp and the end of its function there are only plain values. The
// decoder's settings are the library's own, as in Pillow.
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <vector>

// jpeglib.h uses what cstddef and cstdio declare, and jerror.h what jpeglib.h does.
// clang-format off
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include "models/io/exif.h"
#include "models/io/image_codecs.h"

namespace attnmux {
namespace {

using namespace std::string_view_literals;

constexpr int kMaxScans = 500;  // of a progressive file; a camera's has about 10, an attack's thousands

struct JpegReading {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump;
  char error[JMSG_LENGTH_MAX] = "";

  JpegReading() = default;
  ~JpegReading() { jpeg_destroy_decompress(&jpeg); }
  JpegReading(const JpegReading&) = delete;
  JpegReading& operator=(const JpegReading&) = delete;

  std::string problem() const { return std::string("a JPEG that cannot be read: ") + error; }
};

JpegReading& reading_of(j_common_ptr jpeg) { return *static_cast<JpegReading*>(jpeg->client_data); }

[[noreturn]] void stop(j_common_ptr jpeg, const char* message) {
  std::snprintf(reading_of(jpeg).error, JMSG_LENGTH_MAX, "%s", message);
  std::longjmp(reading_of(jpeg).jump, 1);
}

[[noreturn]] void on_error(j_common_ptr jpeg) {
  jpeg->err->format_message(jpeg, reading_of(jpeg).error);
  std::longjmp(reading_of(jpeg).jump, 1);
}

// Level -1 is a warning; the library goes on with grey or noise in place of what was lost.
void on_message(j_common_ptr jpeg, int level) {
  const int code = jpeg->err->msg_code;
  const bool harmless = code == JWRN_EXTRANEOUS_DATA || code == JWRN_JFIF_MAJOR || code == JWRN_ADOBE_XFORM;
  if (level < 0 && !harmless) on_error(jpeg);
}

void on_output(j_common_ptr) {}

boolean on_end_of_bytes(j_decompress_ptr jpeg) {
  stop(reinterpret_cast<j_common_ptr>(jpeg), "it is cut off, the file ends early");
}

void on_progress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number > kMaxScans) stop(jpeg, "more than 500 scans");
}

bool read_header(JpegReading& reading, std::string_view bytes) {
  jpeg_decompress_struct& jpeg = reading.jpeg;
  jpeg.err = jpeg_std_error(&reading.errors);
  reading.errors.error_exit = on_error;
  reading.errors.emit_message = on_message;
  reading.errors.output_message = on_output;
  jpeg.client_data = &reading;
  if (setjmp(reading.jump) != 0) return false;
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg.src->fill_input_buffer = on_end_of_bytes;
  reading.progress.progress_monitor = on_progress;
  jpeg.progress = &reading.progress;
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xffff);  // EXIF and XMP
  jpeg_read_header(&jpeg, TRUE);
  return true;
}

// Rows of RGB, or of inverted CMYK.
bool read_rows(JpegReading& reading, uint8_t* samples, size_t row_bytes) {
  jpeg_decompress_struct& jpeg = reading.jpeg;
  if (setjmp(reading.jump) != 0) return false;
  jpeg.out_color_space = jpeg.num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&jpeg);
  while (jpeg.output_scanline < jpeg.output_height) {
    JSAMPROW row = samples + jpeg.output_scanline * row_bytes;
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_decompress(&jpeg);
  return true;
}

int read_orientation(const JpegReading& reading) {
  constexpr std::string_view kExif = "Exif\0\0"sv, kXmp = "http://ns.adobe.com/xap/1.0/\0"sv;
  int of_xmp = 0;
  for (jpeg_saved_marker_ptr marker = reading.jpeg.marker_list; marker != nullptr; marker = marker->next) {
    const std::string_view data(reinterpret_cast<const char*>(marker->data), marker->data_length);
    if (data.starts_with(kExif)) {
      if (const int found = exif_orientation(data)) return found;
    }
    if (data.starts_with(kXmp)) of_xmp = xmp_orientation(data.substr(kXmp.size()));
  }
  return of_xmp == 0 ? 1 : of_xmp;
}

// a * b / 255, rounded.
int multiplied(int a, int b) {
  const int product = a * b + 128;
  return (product + (product >> 8)) >> 8;
}

// The formula of Pillow's convert("RGB"), on values that stand for 255 - c, m, y, k.
std::vector<uint8_t> rgb_of_inverted_cmyk(const std::vector<uint8_t>& samples) {
  std::vector<uint8_t> rgb;
  rgb.reserve(samples.size() / 4 * 3);
  for (size_t i = 0; i < samples.size(); i += 4) {
    const int light = samples[i + 3];
    for (size_t c = 0; c < 3; ++c) {
      rgb.push_back(static_cast<uint8_t>(light - multiplied(255 - samples[i + c], light)));
    }
  }
  return rgb;
}

}  // namespace

StoredImage decode_jpeg(const ImageDecoding& decoding) {
  JpegReading reading;
  if (!read_header(reading, decoding.bytes)) fail_image(decoding, reading.problem());
  const jpeg_decompress_struct& jpeg = reading.jpeg;
  if (jpeg.num_components != 1 && jpeg.num_components != 3 && jpeg.num_components != 4) {
    fail_image(decoding, "a JPEG of " + std::to_string(jpeg.num_components) +
                             " components; grey (1), colour (3) and CMYK (4) are read");
  }
  StoredImage stored;
  ImageSize& size = stored.image.size;
  size = {.height = jpeg.image_height, .width = jpeg.image_width};
  check_image_size(decoding, size);
  stored.orientation = read_orientation(reading);
  if (decoding.part == ImagePart::kHeader) return stored;

  const bool cmyk = jpeg.num_components == 4;
  const int64_t row_bytes = size.width * (cmyk ? 4 : 3);
  std::vector<uint8_t> samples(size.height * row_bytes);
  if (!read_rows(reading, samples.data(), row_bytes)) fail_image(decoding, reading.problem());
  stored.image.pixels = cmyk ? rgb_of_inverted_cmyk(samples) : std::move(samples);
  return stored;
}

}  // namespace attnmux
