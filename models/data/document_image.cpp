#include "models/data/document_image.h"

#include <ATen/ATen.h>

#include <utility>

#include "attnmux/error.h"
#include "models/io/image_file.h"

namespace attnmux {
namespace {

at::Tensor read_rgb(const std::string& path) {
  const RgbImage image = read_image(path);
  return at::tensor(at::ArrayRef<uint8_t>(image.pixels), at::kByte).view({image.size.height, image.size.width, 3});
}

[[noreturn]] void fail(const std::string& origin, const std::string& what) {
  throw Error(ErrorCode::kBadFile, origin + ": " + what);
}

at::Tensor load_pixels(const DocumentImage& image) {
  ImagePatches patches;
  try {
    patches = image.processor->patches(read_rgb(image.path));
  } catch (const Error& error) {
    fail(image.origin, error.what());
  }
  if (patches.grid.height == image.grid.height && patches.grid.width == image.grid.width) return patches.pixel_values;
  fail(image.origin, image.path + ": " + std::to_string(patches.grid.height) + " x " +
                         std::to_string(patches.grid.width) + " patches, at the start of the run " +
                         std::to_string(image.grid.height) + " x " + std::to_string(image.grid.width) +
                         "; the file has changed since");
}

}  // namespace

DocumentImage find_image(const std::string& path, const std::string& origin,
                         std::shared_ptr<const ImageProcessor> processor) {
  ImageSize size;
  std::string where = origin;
  try {
    size = read_image_size(path);
    where += ": " + path;  // which resized() does not know
    size = processor->resized(size);
  } catch (const Error& error) {
    fail(where, error.what());
  }
  const int64_t patch = processor->config().patch_size;
  const ImageGrid grid{.frames = 1, .height = size.height / patch, .width = size.width / patch};
  return {.path = path, .origin = origin, .grid = grid, .processor = std::move(processor)};
}

at::Tensor load_pixels(const std::vector<DocumentImage>& images) {
  if (images.empty()) return {};
  std::vector<at::Tensor> pixels;
  for (const DocumentImage& image : images) pixels.push_back(load_pixels(image));
  return at::cat(pixels);
}

std::vector<ImageGrid> grids_of(const std::vector<DocumentImage>& images) {
  std::vector<ImageGrid> grids;
  for (const DocumentImage& image : images) grids.push_back(image.grid);
  return grids;
}

}  // namespace attnmux
