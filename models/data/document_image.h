// An image of a document: read when a step needs it, so that a data set is larger than memory.
//
//   DocumentImage image = find_image("cat.png", "train.jsonl:12", processor);      // reads the file's header
//   at::Tensor pixel_values = load_pixels({image, ...});                           // reads the files
//
// Any thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "models/data/image_processor.h"

namespace attnmux {

struct DocumentImage {
  std::string path;
  std::string origin;  // of its document, for messages
  ImageGrid grid;      // in patches
  std::shared_ptr<const ImageProcessor> processor;

  int64_t tokens() const {
    const int64_t merge = processor->config().merge_size;
    return grid.frames * (grid.height / merge) * (grid.width / merge);
  }
};

// Throws Error(kBadFile) naming origin and file: what read_image_size() and ImageProcessor::resized() refuse.
DocumentImage find_image(const std::string& path, const std::string& origin,
                         std::shared_ptr<const ImageProcessor> processor);

// [patches of all, values of a patch]; undefined without images. Throws Error(kBadFile) naming origin and file: what
// read_image() refuses, and an image whose size has changed since it was found.
at::Tensor load_pixels(const std::vector<DocumentImage>& images);

std::vector<ImageGrid> grids_of(const std::vector<DocumentImage>& images);

}  // namespace attnmux
