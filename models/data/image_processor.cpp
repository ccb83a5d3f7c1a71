#include "models/data/image_processor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "attnmux/error.h"
#include "models/data/resize.h"
#include "models/io/atomic_file.h"
#include "models/io/config_reader.h"
#include "models/io/json_node.h"

namespace attnmux {
namespace {

constexpr double kMaxAspectRatio = 200;

void check_processor(const JsonNode& root) {
  const JsonNode type = root.at("image_processor_type");
  for (const char* known :
       {"Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast", "Qwen2VLImageProcessorPil", "Qwen2_5_VLImageProcessor"}) {
    if (type.text() == known) return;
  }
  type.fail("built are Qwen2VLImageProcessor, its Fast and Pil variants, and Qwen2_5_VLImageProcessor");
}

// Each asks for other pixels than those that are made here.
void check_settings(const JsonNode& root) {
  for (const char* key : {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb"}) {
    if (!read_flag(root, key, true)) root.at(key).fail("built is true");
  }
  if (root.has("resample") && root.at("resample").integer() != 3) root.at("resample").fail("built is 3, bicubic");
  if (root.has("rescale_factor") && std::abs(root.at("rescale_factor").number() * 255 - 1) > 1e-6) {
    root.at("rescale_factor").fail("built is 1 / 255");
  }
}

std::array<double, 3> read_channels(const JsonNode& root, const std::string& key,
                                    const std::array<double, 3>& otherwise) {
  if (!root.has(key)) return otherwise;
  const std::vector<JsonNode> values = root.at(key).elements();
  if (values.size() != 3) root.at(key).fail("three numbers are expected, one for each channel");
  return {values[0].number(), values[1].number(), values[2].number()};
}

ImageProcessorConfig read_settings(const JsonNode& root) {
  check_processor(root);
  check_settings(root);
  ImageProcessorConfig config;
  config.patch_size = read_positive(root, "patch_size", config.patch_size);
  config.temporal_patch_size = read_positive(root, "temporal_patch_size", config.temporal_patch_size);
  config.merge_size = read_positive(root, "merge_size", config.merge_size);
  if (root.has("size")) {
    config.min_pixels = read_positive(root.at("size"), "shortest_edge", config.min_pixels);
    config.max_pixels = read_positive(root.at("size"), "longest_edge", config.max_pixels);
  }
  config.min_pixels = read_positive(root, "min_pixels", config.min_pixels);
  config.max_pixels = read_positive(root, "max_pixels", config.max_pixels);
  config.image_mean = read_channels(root, "image_mean", config.image_mean);
  config.image_std = read_channels(root, "image_std", config.image_std);
  for (const double value : config.image_std) {
    if (!(value > 0)) root.at("image_std").fail("positive numbers are expected");
  }
  return config;
}

at::Tensor per_channel(const std::array<double, 3>& values) {
  return at::tensor(at::ArrayRef<double>(values), at::kFloat).view({3, 1, 1});
}

}  // namespace

ImageProcessor ImageProcessor::from_folder(const std::string& dir) {
  const std::string composite = dir + "/processor_config.json";
  if (std::filesystem::exists(composite)) {
    const JsonNode root = JsonNode::parse(read_whole_file(composite), composite, ErrorCode::kConfig);
    if (root.has("image_processor")) return ImageProcessor(read_settings(root.at("image_processor")));
  }
  const std::string path = dir + "/preprocessor_config.json";
  return from_json(read_whole_file(path), path);
}

ImageProcessor ImageProcessor::from_json(const std::string& text, const std::string& file_name) {
  return ImageProcessor(read_settings(JsonNode::parse(text, file_name, ErrorCode::kConfig)));
}

ImageSize ImageProcessor::resized(const ImageSize& image) const {
  const auto height = static_cast<double>(image.height), width = static_cast<double>(image.width);
  if (image.height < 1 || image.width < 1 || std::max(height, width) / std::min(height, width) > kMaxAspectRatio) {
    throw Error(ErrorCode::kInvalidArgument,
                "an image of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                    " pixels; sides of at least 1 are expected, one at most 200 times the other");
  }
  const auto factor = static_cast<double>(config_.patch_size * config_.merge_size);
  const auto min_pixels = static_cast<double>(config_.min_pixels), max_pixels = static_cast<double>(config_.max_pixels);
  // nearbyint: halves go to the even neighbour, as Python's round().
  double new_height = std::nearbyint(height / factor) * factor, new_width = std::nearbyint(width / factor) * factor;
  if (new_height * new_width > max_pixels) {
    const double beta = std::sqrt(height * width / max_pixels);
    new_height = std::max(factor, std::floor(height / beta / factor) * factor);
    new_width = std::max(factor, std::floor(width / beta / factor) * factor);
  } else if (new_height * new_width < min_pixels) {
    const double beta = std::sqrt(min_pixels / (height * width));
    new_height = std::ceil(height * beta / factor) * factor;
    new_width = std::ceil(width * beta / factor) * factor;
  }
  return {static_cast<int64_t>(new_height), static_cast<int64_t>(new_width)};
}

ImagePatches ImageProcessor::patches(const at::Tensor& rgb) const {
  if (rgb.dim() != 3 || rgb.size(2) != 3 || rgb.scalar_type() != at::kByte) {
    throw Error(ErrorCode::kInvalidArgument, "an image has shape " + c10::str(rgb.sizes()) + " and dtype " +
                                                 at::toString(rgb.scalar_type()) +
                                                 "; [height, width, 3] uint8 is expected");
  }
  const ImageSize size = resized({rgb.size(0), rgb.size(1)});
  const at::Tensor resized_rgb = resize_bicubic(rgb.contiguous(), size.height, size.width);
  at::Tensor image = resized_rgb.permute({2, 0, 1}).to(at::kFloat);
  image = (image / 255 - per_channel(config_.image_mean)) / per_channel(config_.image_std);

  const int64_t patch = config_.patch_size, merge = config_.merge_size;
  const ImageGrid grid{.frames = 1, .height = size.height / patch, .width = size.width / patch};
  // [channel, block row, row in block, y, block column, column in block, x] -> patches by blocks, each channel, y, x
  const at::Tensor blocks = image.contiguous()
                                .view({3, grid.height / merge, merge, patch, grid.width / merge, merge, patch})
                                .permute({1, 4, 2, 5, 0, 3, 6})
                                .unsqueeze(5)
                                .expand({-1, -1, -1, -1, -1, config_.temporal_patch_size, -1, -1});
  return {blocks.reshape({grid.height * grid.width, -1}), grid};
}

}  // namespace attnmux
