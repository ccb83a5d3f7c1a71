// Image files against Pillow and the Hugging Face processor: tests/golden/make_image_file_goldens.py.
#include "models/io/image_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>
#include <vector>

#include "models/data/image_processor.h"
#include "models/io/atomic_file.h"
#include "models/io/safetensors.h"
#include "tests/common/compare.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

const std::string kFolder = ATTNMUX_SOURCE_DIR "/tests/golden/images/";

const SafetensorsFile& golden() {
  static const SafetensorsFile file = SafetensorsFile::open(ATTNMUX_SOURCE_DIR "/tests/golden/image_files.safetensors");
  return file;
}

std::vector<std::string> all_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

ImageProcessor qwen2_vl() {
  return ImageProcessor::from_json(R"({"image_processor_type": "Qwen2VLImageProcessor"})", "preprocessor_config.json");
}

at::Tensor to_tensor(const RgbImage& image) {
  return at::tensor(at::ArrayRef<uint8_t>(image.pixels), at::kByte).view({image.size.height, image.size.width, 3});
}

class ImageFile : public ::testing::TestWithParam<std::string> {};

// Both decode with libjpeg-turbo, of different versions; a PNG leaves no choice.
TEST_P(ImageFile, PixelsAreThoseOfPillow) {
  const std::string& name = GetParam();
  const int64_t stride = std::stoll(golden().metadata().at("stride"));
  const RgbImage image = read_image(kFolder + name);
  const at::Tensor size = golden().tensor(name + ".size"), rgb = golden().tensor(name + ".rgb");
  EXPECT_TRUE(at::equal(at::tensor({image.size.height, image.size.width}, at::kLong), size));
  EXPECT_EQ(read_image_size(kFolder + name), image.size);
  const bool large = rgb.size(0) != image.size.height;
  const at::Tensor got = large ? to_tensor(image).slice(0, 0, c10::nullopt, stride) : to_tensor(image);
  ASSERT_EQ(got.sizes(), rgb.sizes());
  EXPECT_TRUE(testing::close(got.to(at::kFloat), rgb.to(at::kFloat), {.absolute = name.ends_with(".png") ? 0.0 : 1.0}));
}

TEST_P(ImageFile, PatchesAreThoseOfTheProcessor) {
  const std::string& name = GetParam();
  const ImageProcessor processor = qwen2_vl();
  const RgbImage image = read_image(kFolder + name);
  if (!golden().contains(name + ".grid")) {
    expect_error(ErrorCode::kInvalidArgument, {"4000 x 1 pixels"}, [&] { processor.resized(image.size); });
    return;
  }
  const ImagePatches got = processor.patches(to_tensor(image));
  EXPECT_TRUE(at::equal(at::tensor({got.grid.frames, got.grid.height, got.grid.width}, at::kLong),
                        golden().tensor(name + ".grid")));
  if (!golden().contains(name + ".patches")) return;
  const double step =
      1.0 / 255 / *std::min_element(processor.config().image_std.begin(), processor.config().image_std.end());
  const int64_t stride = std::stoll(golden().metadata().at("stride"));
  EXPECT_TRUE(testing::close(got.pixel_values.slice(0, 0, c10::nullopt, stride), golden().tensor(name + ".patches"),
                             {.absolute = step}));
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}
INSTANTIATE_TEST_SUITE_P(Files, ImageFile, ::testing::ValuesIn(all_files()), test_name);

TEST(ImageFileBad, EveryCutIsAnErrorThatNamesTheFile) {
  for (const char* name :
       {"rgb8.png", "interlaced_palette2.png", "grey16.png", "jpeg420.jpg", "progressive.jpg", "cmyk.jpg"}) {
    const std::string bytes = read_whole_file(kFolder + name);
    for (size_t size = 12; size < bytes.size(); size += 1 + size / 40) {
      expect_error(ErrorCode::kBadFile, {"cut.png: ", "cut off"},
                   [&] { decode_image(std::string_view(bytes).substr(0, size), "cut.png"); });
    }
  }
}

// A flipped bit is found by the check sums of a PNG; a JPEG has none and may decode to other pixels.
TEST(ImageFileBad, FlippedBitsOfAPngAreFound) {
  const std::string bytes = read_whole_file(kFolder + "palette4.png");
  for (size_t at = 8; at < bytes.size(); ++at) {
    std::string broken = bytes;
    broken[at] = static_cast<char>(broken[at] ^ 0x10);
    expect_error(ErrorCode::kBadFile, {"broken.png: "}, [&] { decode_image(broken, "broken.png"); });
  }
}

TEST(ImageFileBad, PixelsThatAJpegLacksAreFound) {
  std::string bytes = read_whole_file(kFolder + "jpeg444.jpg");
  bytes.replace(bytes.size() - 300, 2, "\xff\xd9");  // the end of the image
  expect_error(ErrorCode::kBadFile, {"b.jpg: a JPEG that cannot be read", "premature end"},
               [&] { decode_image(bytes, "b.jpg"); });
}

struct BadImage {
  std::string name;
  std::string bytes;
  std::vector<std::string> message;
};
void PrintTo(const BadImage& bad, std::ostream* stream) { *stream << bad.name; }

uint32_t crc32(std::string_view bytes) {
  uint32_t crc = 0xffffffff;
  for (const char byte : bytes) {
    crc ^= static_cast<unsigned char>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

std::string big_endian(uint32_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
          static_cast<char>(value)};
}

// A PNG that claims this size.
std::string png_of(uint32_t width, uint32_t height) {
  std::string bytes = read_whole_file(kFolder + "rgb8.png");
  bytes.replace(16, 8, big_endian(width) + big_endian(height));
  return bytes.replace(29, 4, big_endian(crc32(std::string_view(bytes).substr(12, 17))));
}

std::string jpeg_of(uint32_t width, uint32_t height) {
  std::string bytes = read_whole_file(kFolder + "grey.jpg");
  return bytes.replace(bytes.find("\xff\xc0") + 5, 4, big_endian(height << 16 | width));
}

// The third component of frame and scan cut out.
std::string jpeg_of_two_components() {
  std::string bytes = read_whole_file(kFolder + "jpeg444.jpg");
  const size_t scan = bytes.find("\xff\xda"), frame = bytes.find("\xff\xc0");
  bytes[scan + 3] = 10, bytes[scan + 4] = 2;
  bytes.erase(scan + 9, 2);
  bytes[frame + 3] = 14, bytes[frame + 9] = 2;
  return bytes.erase(frame + 16, 3);
}

class ImageFileRefused : public ::testing::TestWithParam<BadImage> {};

TEST_P(ImageFileRefused, NamingFileAndWhatIsAllowed) {
  std::vector<std::string> message = GetParam().message;
  message.push_back("pictures/a.png: ");
  expect_error(ErrorCode::kBadFile, message, [] { decode_image(GetParam().bytes, "pictures/a.png"); });
}

INSTANTIATE_TEST_SUITE_P(
    Files, ImageFileRefused,
    ::testing::Values(BadImage{"Empty", "", {"empty", "PNG and JPEG"}},
                      BadImage{"Gif", "GIF89a......", {"a GIF", "PNG and JPEG", "convert"}},
                      BadImage{"Webp", "RIFF....WEBPVP8 ", {"a WebP"}}, BadImage{"Bmp", "BM..........", {"a BMP"}},
                      BadImage{"Heic", std::string("\0\0\0 ftypheic....", 16), {"a HEIC"}},
                      BadImage{"Svg", "<svg/>", {"an SVG"}},
                      BadImage{"Other", "\x01\x02 text", {"begins with the bytes 01 02 20"}},
                      BadImage{"PngWithoutWidth", png_of(0, 5), {"Image width is zero"}},
                      BadImage{"PngWithoutHeight", png_of(5, 0), {"Image height is zero"}},
                      BadImage{"PngTooLarge", png_of(20000, 20000), {"20000 x 20000 pixels", "178956970"}},
                      BadImage{"PngFarTooLarge", png_of(0x7fffffff, 0x7fffffff), {"2147483647 x 2147483647 pixels"}},
                      BadImage{"JpegWithoutHeight", jpeg_of(5, 0), {"a JPEG that cannot be read", "mpty"}},
                      BadImage{"JpegTooLarge", jpeg_of(60000, 60000), {"60000 x 60000 pixels", "178956970"}},
                      BadImage{"JpegOfTwo", jpeg_of_two_components(), {"2 components", "grey (1)"}}),
    [](const auto& info) { return info.param.name; });

TEST(ImageFileBad, MissingFile) {
  expect_error(ErrorCode::kBadFile, {"missing.png"}, [] { read_image("missing.png"); });
  expect_error(ErrorCode::kBadFile, {"missing.png"}, [] { read_image_size("missing.png"); });
}

TEST(ImageFileBad, TheHeaderAloneTellsWhatIsNoImage) {
  const TempDir dir;
  dir.write("a.png", png_of(20000, 20000));
  expect_error(ErrorCode::kBadFile, {"a.png", "20000 x 20000"}, [&] { read_image_size(dir.file("a.png")); });
}

}  // namespace
}  // namespace attnmux
