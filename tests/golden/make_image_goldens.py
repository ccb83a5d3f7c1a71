#!/usr/bin/env python3
"""Makes tests/golden/image_processor.safetensors: what the Hugging Face processor makes of images of a formula.

    python tests/golden/make_image_goldens.py

Of each image, named HEIGHTxWIDTH, the grid and every STRIDE-th patch. The image is a function of its coordinates, which
the test computes likewise. Needs transformers and Pillow; the versions used are recorded.
"""

import pathlib
import sys

import numpy
import PIL
import safetensors.numpy
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
SIZES = [(28, 28), (1, 1), (3, 5), (37, 91), (800, 1333), (20, 4000), (57, 56), (2000, 1100)]
STRIDE = 499


def image(height, width):
    """[height, width, 3]: slopes, edges and noise."""
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(3), indexing="ij")
    return ((3 * x + 5 * y + 70 * c + (x // 9 + y // 7) % 2 * 120 + (x * y * (c + 1)) % 31) % 256).astype(numpy.uint8)


def main():
    processor = Qwen2VLImageProcessorPil()
    tensors = {}
    for height, width in SIZES:
        result = processor(PIL.Image.fromarray(image(height, width)), return_tensors="np")
        tensors[f"{height}x{width}.grid"] = result["image_grid_thw"][0]
        tensors[f"{height}x{width}.patches"] = numpy.ascontiguousarray(result["pixel_values"][::STRIDE])
        print(height, width, result["image_grid_thw"][0], tensors[f"{height}x{width}.patches"].shape)
    safetensors.numpy.save_file(tensors, HERE / "image_processor.safetensors",
                                metadata={"transformers": transformers.__version__, "pillow": PIL.__version__,
                                          "numpy": numpy.__version__, "python": sys.version.split()[0],
                                          "stride": str(STRIDE)})


if __name__ == "__main__":
    main()
