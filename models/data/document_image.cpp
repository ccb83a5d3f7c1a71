#include "models/data/document_image.h"

#include <ATen/ATen.h>

#include <utility>

#include "attnmux/error.h"
#include "models/io/image_file.h"

namespace attnmux {

DocumentImage find_image(const std::string& path, std::shared_ptr<const ImageProcessor> processor) {
  const ImageSize found = read_image_size(path);
  ImageSize size;
  try {
    size = processor->resized(found);
  } catch (const Error& error) {
    throw Error(ErrorCode::kBadFile, path + ": " + error.what());
  }
  const int64_t patch = processor->config().patch_size;
  const ImageGrid grid{.frames = 1, .height = size.height / patch, .width = size.width / patch};
  return {.path = path, .grid = grid, .processor = std::move(processor)};
}

at::Tensor load_pixels(const std::vector<DocumentImage>& images) {
  if (images.empty()) return {};
  std::vector<at::Tensor> pixels;
  for (const DocumentImage& image : images) {
    RgbImage rgb = read_image(image.path);
    const ImagePatches patches =
        image.processor->patches(at::from_blob(rgb.pixels.data(), {rgb.size.height, rgb.size.width, 3}, at::kByte));
    if (patches.grid.height != image.grid.height || patches.grid.width != image.grid.width) {
      throw Error(ErrorCode::kBadFile, image.path + ": " + std::to_string(patches.grid.height) + " x " +
                                           std::to_string(patches.grid.width) + " patches, at the start of the run " +
                                           std::to_string(image.grid.height) + " x " +
                                           std::to_string(image.grid.width) + "; the file has changed since");
    }
    pixels.push_back(patches.pixel_values);
  }
  return at::cat(pixels);
}

std::vector<ImageGrid> grids_of(const std::vector<DocumentImage>& images) {
  std::vector<ImageGrid> grids;
  for (const DocumentImage& image : images) grids.push_back(image.grid);
  return grids;
}

}  // namespace attnmux
