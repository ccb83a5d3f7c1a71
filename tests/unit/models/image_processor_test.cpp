// Image preprocessing against the Hugging Face processor: tests/golden/make_image_goldens.py.
#include "models/data/image_processor.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "models/io/safetensors.h"
#include "tests/common/compare.h"
#include "tests/unit/expect_error.h"
#include "tests/common/temp_dir.h"

namespace attnmux {
namespace {

// The generator's image: slopes, edges and noise.
at::Tensor image(int64_t height, int64_t width) {
  const at::Tensor y = at::arange(height, at::kLong).view({-1, 1, 1}),
                   x = at::arange(width, at::kLong).view({1, -1, 1});
  const at::Tensor c = at::arange(3, at::kLong).view({1, 1, -1});
  const auto div = [](const at::Tensor& a, int64_t b) { return at::floor_divide(a, b); };
  const at::Tensor edges = (div(x, 9) + div(y, 7)).remainder(2) * 120;
  return (3 * x + 5 * y + 70 * c + edges + (x * y * (c + 1)).remainder(31)).remainder(256).to(at::kByte);
}

ImageProcessor qwen2_vl() {
  return ImageProcessor::from_json(R"({"image_processor_type": "Qwen2VLImageProcessor"})", "preprocessor_config.json");
}

struct Size {
  int64_t height;
  int64_t width;
};

class ImageProcessorGolden : public ::testing::TestWithParam<Size> {};

TEST_P(ImageProcessorGolden, GridsAndPixelsEqualTransformers) {
  const auto [height, width] = GetParam();
  const SafetensorsFile golden = SafetensorsFile::open(ATTNMUX_SOURCE_DIR "/tests/golden/image_processor.safetensors");
  const std::string name = std::to_string(height) + "x" + std::to_string(width);
  const int64_t stride = std::stoll(golden.metadata().at("stride"));
  const ImageProcessor processor = qwen2_vl();
  const ImagePatches got = processor.patches(image(height, width));
  EXPECT_TRUE(at::equal(at::tensor({got.grid.frames, got.grid.height, got.grid.width}, at::kLong),
                        golden.tensor(name + ".grid")));
  ASSERT_EQ(got.pixel_values.size(0), got.grid.height * got.grid.width);
  // A tenth of a step of 255.
  const double tenth = 0.1 / 255 / processor.config().image_std[0];
  EXPECT_TRUE(testing::close(got.pixel_values.slice(0, 0, c10::nullopt, stride), golden.tensor(name + ".patches"),
                             {.absolute = tenth}));
}

INSTANTIATE_TEST_SUITE_P(Sizes, ImageProcessorGolden,
                         ::testing::Values(Size{28, 28}, Size{1, 1}, Size{3, 5}, Size{37, 91}, Size{800, 1333},
                                           Size{20, 4000}, Size{57, 56}, Size{2000, 1100}),
                         [](const auto& info) {
                           return std::to_string(info.param.height) + "x" + std::to_string(info.param.width);
                         });

TEST(ImageProcessor, HalvesOfAPatchGoToTheEvenNeighbour) {
  EXPECT_EQ(qwen2_vl().resized({70, 98}), (ImageSize{56, 112}));  // 2.5 and 3.5 times 28
}

TEST(ImageProcessor, ReadsItsSettings) {
  const ImageProcessor processor = ImageProcessor::from_json(
      R"({"image_processor_type": "Qwen2_5_VLImageProcessor", "patch_size": 4, "min_pixels": 64, "max_pixels": 640,
          "image_mean": [0, 0, 0], "image_std": [1, 1, 1], "resample": 3, "rescale_factor": 0.00392156862745098})",
      "preprocessor_config.json");
  EXPECT_EQ(processor.resized({1, 1}), (ImageSize{8, 8}));
  EXPECT_EQ(processor.resized({80, 80}), (ImageSize{24, 24}));
  const ImagePatches white = processor.patches(at::full({8, 8, 3}, 255, at::kByte));
  EXPECT_TRUE(at::equal(white.pixel_values, at::ones({4, 96})));
}

TEST(ImageProcessor, OfAFolder) {
  const TempDir dir;
  expect_error(ErrorCode::kBadFile, {dir.file("preprocessor_config.json")},
               [&] { ImageProcessor::from_folder(dir.path()); });
  const auto patch_size = [&] { return ImageProcessor::from_folder(dir.path()).config().patch_size; };
  dir.write("preprocessor_config.json", R"({"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 4})");
  dir.write("processor_config.json", R"({"processor_class": "Qwen2_5_VLProcessor"})");
  EXPECT_EQ(patch_size(), 4);
  dir.write("processor_config.json",
            R"({"image_processor": {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8}})");
  EXPECT_EQ(patch_size(), 8);
  dir.write("processor_config.json", R"({"image_processor": {"image_processor_type": "CLIPImageProcessor"}})");
  expect_error(ErrorCode::kConfig, {"processor_config.json: image_processor.image_processor_type is"}, patch_size);
}

TEST(ImageProcessor, BadImagesAreRefused) {
  const ImageProcessor processor = qwen2_vl();
  expect_error(ErrorCode::kInvalidArgument, {"4000 x 1 pixels", "200 times"}, [&] { processor.resized({1, 4000}); });
  expect_error(ErrorCode::kInvalidArgument, {"5 x 0 pixels"}, [&] {
    processor.patches(at::empty({0, 5, 3}, at::kByte));
  });
  expect_error(ErrorCode::kInvalidArgument, {"[8, 8, 4]", "[height, width, 3]"}, [&] {
    processor.patches(at::zeros({8, 8, 4}, at::kByte));
  });
  expect_error(ErrorCode::kInvalidArgument, {"Float", "uint8"}, [&] { processor.patches(at::zeros({8, 8, 3})); });
}

struct BadSetting {
  std::string name;
  std::string json;
  std::vector<std::string> message;
};
void PrintTo(const BadSetting& bad, std::ostream* stream) { *stream << bad.name; }

class ImageProcessorBad : public ::testing::TestWithParam<BadSetting> {};

TEST_P(ImageProcessorBad, IsRefusedNamingFileAndKey) {
  std::vector<std::string> message = GetParam().message;
  message.push_back("p.json: ");
  expect_error(ErrorCode::kConfig, message, [] { ImageProcessor::from_json(GetParam().json, "p.json"); });
}

std::string with(const std::string& setting) {
  return R"({"image_processor_type": "Qwen2VLImageProcessor", )" + setting + "}";
}

INSTANTIATE_TEST_SUITE_P(
    Settings, ImageProcessorBad,
    ::testing::Values(BadSetting{"Missing", "{}", {"image_processor_type is missing"}},
                      BadSetting{"Unknown",
                                 R"({"image_processor_type": "CLIPImageProcessor"})",
                                 {"image_processor_type is \"CLIPImageProcessor\"", "Qwen2VLImageProcessor"}},
                      BadSetting{"NotResized", with(R"("do_resize": false)"), {"do_resize is false"}},
                      BadSetting{"Bilinear", with(R"("resample": 2)"), {"resample is 2", "bicubic"}},
                      BadSetting{"OtherScale", with(R"("rescale_factor": 1.0)"), {"rescale_factor is 1"}},
                      BadSetting{"TwoChannels", with(R"("image_mean": [0.5, 0.5])"), {"image_mean", "three"}},
                      BadSetting{"ZeroStd", with(R"("image_std": [1, 0, 1])"), {"image_std", "positive"}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace attnmux
