// Images as a vision-language model takes them: resized, normalised, cut into patches, as the Hugging Face processor
// does.
//
//   ImageProcessor processor = ImageProcessor::from_folder("models/qwen2.5-vl");
//   ImagePatches image = processor.patches(rgb);                                    // rgb: [height, width, 3] uint8
//   input.pixel_values = at::cat({image.pixel_values, ...}); input.image_grids = {image.grid, ...};
//
// transformers 5.23.0, models/qwen2_vl/image_processing_pil_qwen2_vl.py: the same grid, and pixels within one step of
// 255. Immutable, any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>

#include "models/io/image_file.h"
#include "models/nn/causal_lm.h"

namespace attnmux {

struct ImageProcessorConfig {
  int64_t patch_size = 14;
  int64_t temporal_patch_size = 2;
  int64_t merge_size = 2;
  int64_t min_pixels = 56 * 56;
  int64_t max_pixels = 28 * 28 * 1280;
  std::array<double, 3> image_mean = {0.48145466, 0.4578275, 0.40821073};
  std::array<double, 3> image_std = {0.26862954, 0.26130258, 0.27577711};
};

struct ImagePatches {
  at::Tensor pixel_values;  // [patches, 3 * temporal_patch_size * patch_size^2] fp32, blocks of merge x merge together
  ImageGrid grid;           // in patches
};

class ImageProcessor {
 public:
  // Reads "image_processor" in DIR/processor_config.json, where there is one, as transformers 5 writes it, or
  // DIR/preprocessor_config.json. Throws Error(kConfig) naming file and key for an unknown processor and for a setting
  // that is not built.
  static ImageProcessor from_folder(const std::string& dir);
  static ImageProcessor from_json(const std::string& text, const std::string& file_name);

  // Multiples of patch_size * merge_size near the image's own sides, with min_pixels to max_pixels pixels. Throws
  // Error(kInvalidArgument) for an empty image and for one side more than 200 times the other.
  ImageSize resized(const ImageSize& image) const;

  ImagePatches patches(const at::Tensor& rgb) const;  // [height, width, 3] uint8

  const ImageProcessorConfig& config() const { return config_; }

 private:
  explicit ImageProcessor(const ImageProcessorConfig& config) : config_(config) {}
  ImageProcessorConfig config_;
};

}  // namespace attnmux
