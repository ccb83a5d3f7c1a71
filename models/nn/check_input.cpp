#include "models/nn/check_input.h"

#include <ATen/ATen.h>

#include <string>

#include "attnmux/error.h"

namespace attnmux {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw Error(ErrorCode::kInvalidArgument, what); }

std::string shape_of(const at::Tensor& tensor) { return c10::str(tensor.sizes()); }

int64_t tokens_of(const ModelConfig& config, const ModelInput& input) {
  const at::Tensor &ids = input.input_ids, &embeds = input.inputs_embeds;
  if (ids.defined() == embeds.defined()) {
    refuse(std::string(ids.defined() ? "both" : "neither") + " of input_ids and inputs_embeds given; one is expected");
  }
  if (ids.defined() && ids.dim() != 1) refuse("input_ids have shape " + shape_of(ids) + ", expected is [tokens]");
  if (embeds.defined() && (embeds.dim() != 2 || embeds.size(1) != config.hidden_size)) {
    refuse("inputs_embeds have shape " + shape_of(embeds) + ", expected is [tokens, " +
           std::to_string(config.hidden_size) + "]");
  }
  return ids.defined() ? ids.size(0) : embeds.size(0);
}

void check_positions(const ModelConfig& config, const ModelInput& input, int64_t tokens) {
  const at::Tensor& positions = input.position_ids;
  const bool with_images = !input.image_grids.empty();  // their tokens have places in three axes
  if (positions.defined()) {
    const bool plain = positions.dim() == 1 && positions.size(0) == tokens;
    const bool mrope = positions.dim() == 2 && positions.size(0) == 3 && positions.size(1) == tokens;
    if ((plain && !with_images) || (mrope && config.vision)) return;
  }
  refuse("position_ids " + (positions.defined() ? "have shape " + shape_of(positions) : std::string("are missing")) +
         "; for " + std::to_string(tokens) + " tokens " + config.architecture + " takes " +
         (config.vision ? "[3, tokens] (M-RoPE)" : "[tokens]") +
         (config.vision && !with_images ? " or, for text alone, [tokens]" : ""));
}

void check_patches(const VisionConfig& vision, const ModelInput& input) {
  const int64_t merge = vision.spatial_merge_size;
  int64_t patches = 0;
  for (const ImageGrid& grid : input.image_grids) {
    if (grid.frames < 1 || grid.height < 1 || grid.width < 1 || grid.height % merge != 0 || grid.width % merge != 0) {
      refuse("an image of " + std::to_string(grid.frames) + " x " + std::to_string(grid.height) + " x " +
             std::to_string(grid.width) + " patches; height and width must be multiples of " + std::to_string(merge));
    }
    patches += grid.frames * grid.height * grid.width;
  }
  const int64_t values = vision.in_channels * vision.temporal_patch_size * vision.patch_size * vision.patch_size;
  const at::Tensor& pixels = input.pixel_values;
  if (pixels.defined() && pixels.dim() == 2 && pixels.size(0) == patches && pixels.size(1) == values) return;
  refuse("pixel_values " + (pixels.defined() ? "have shape " + shape_of(pixels) : std::string("are missing")) +
         ", the images' grids ask for [" + std::to_string(patches) + ", " + std::to_string(values) + "]");
}

void check_image_tokens(const ModelConfig& config, const ModelInput& input) {
  const int64_t unit = config.vision->spatial_merge_size * config.vision->spatial_merge_size;
  int64_t expected = 0;
  for (const ImageGrid& grid : input.image_grids) expected += grid.frames * grid.height * grid.width / unit;
  const auto found = input.input_ids.eq(config.image_token_id).sum().item<int64_t>();
  if (found != expected) {
    refuse("input_ids have " + std::to_string(found) + " image tokens (id " + std::to_string(config.image_token_id) +
           "), the " + std::to_string(input.image_grids.size()) + " images make " + std::to_string(expected) +
           "; each image stands for its own placeholders");
  }
  if (input.input_ids.eq(config.video_token_id).any().item<bool>()) {
    throw Error(ErrorCode::kUnsupported, "input_ids have a video token (id " + std::to_string(config.video_token_id) +
                                             "); videos are not built");
  }
}

}  // namespace

void check_input(const ModelConfig& config, const ModelInput& input) {
  const bool images = input.pixel_values.defined() || !input.image_grids.empty();
  if (images && !config.vision) refuse("the input holds images, " + config.architecture + " reads text alone");
  check_positions(config, input, tokens_of(config, input));
  if (images && input.inputs_embeds.defined()) refuse("images beside inputs_embeds, which hold them already");
  if (images) check_patches(*config.vision, input);
  if (config.vision && input.input_ids.defined()) check_image_tokens(config, input);
}

}  // namespace attnmux
