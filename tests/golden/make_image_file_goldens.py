#!/usr/bin/env python3
"""Makes tests/golden/images/* and tests/golden/image_files.safetensors: what the Hugging Face processor reads out of files.

    python tests/golden/make_image_file_goldens.py

Of each file the pixels that load_image gives ("NAME.rgb", [height, width, 3] uint8; of a large one every STRIDE-th row),
the grid of patches and, of some, every STRIDE-th patch. PNGs are written here, as Pillow cannot write every kind that it reads.
Needs transformers and Pillow; the versions used are recorded.
"""

import pathlib
import struct
import sys
import zlib

import numpy
import PIL.features
import PIL.Image
import safetensors.numpy
import transformers
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / "images"
STRIDE = 97
WITH_PATCHES = {"1333x800.jpg", "20x4000.png", "28x28.png", "cmyk.jpg", "grey16.png", "one_pixel.png"}
HEIGHT, WIDTH = 23, 37
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def samples(channels, levels, height=HEIGHT, width=WIDTH):
    """[height, width, channels] integers below `levels`: slopes and edges."""
    y, x, c = numpy.meshgrid(numpy.arange(height), numpy.arange(width), numpy.arange(channels), indexing="ij")
    value = (7 * x + 11 * y + 70 * c + (x // 9 + y // 7) % 2 * 90) % 256
    return value * (levels - 1) // 255


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(values, depth):
    """Rows of samples as PNG stores them, each behind its filter byte."""
    rows = b""
    for row in values.reshape(values.shape[0], -1):
        if depth == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(value), f"0{depth}b") for value in row)
            bits += "0" * (-len(bits) % 8)
            rows += b"\0" + bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    return rows


def png(values, depth, kind, before=(), interlaced=False):
    """A PNG of [height, width, channels] samples; `before`: chunks in front of the pixels."""
    height, width = values.shape[:2]
    data = b"".join(packed(values[y::dy, x::dx], depth) for y, x, dy, dx in ADAM7 if y < height and x < width) \
        if interlaced else packed(values, depth)
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunk(*each) for each in before) + \
        chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def palette(colors):
    return b"PLTE", bytes((37 * i + 80 * c) % 256 for i in range(colors) for c in range(3))


def exif(orientation, order):
    return (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(
        order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def write_pngs():
    files = {
        "grey1.png": png(samples(1, 2), 1, GREY),
        "grey2.png": png(samples(1, 4), 2, GREY),
        "grey4.png": png(samples(1, 16), 4, GREY),
        "grey8.png": png(samples(1, 256), 8, GREY),
        "grey8_transparent.png": png(samples(1, 256), 8, GREY, [(b"tRNS", struct.pack(">H", 77))]),
        "grey16.png": png(samples(1, 1024), 16, GREY),
        "grey_alpha8.png": png(samples(2, 256), 8, GREY_ALPHA),
        "grey_alpha16.png": png(samples(2, 65536), 16, GREY_ALPHA),
        "rgb8.png": png(samples(3, 256), 8, RGB),
        "rgb8_transparent.png": png(samples(3, 256), 8, RGB, [(b"tRNS", struct.pack(">HHH", 0, 70, 140))]),
        "rgb8_gamma.png": png(samples(3, 256), 8, RGB, [(b"gAMA", struct.pack(">I", 100000))]),
        "rgb16.png": png(samples(3, 65536), 16, RGB),
        "rgba8.png": png(samples(4, 256), 8, RGBA),
        "rgba16.png": png(samples(4, 65536), 16, RGBA),
        "palette1.png": png(samples(1, 2), 1, PALETTE, [palette(2)]),
        "palette4.png": png(samples(1, 16), 4, PALETTE, [palette(16)]),
        "palette8.png": png(samples(1, 200), 8, PALETTE, [palette(200)]),
        "palette8_transparent.png": png(samples(1, 200), 8, PALETTE,
                                        [palette(200), (b"tRNS", bytes(range(0, 256, 2)))]),
        "interlaced_rgb8.png": png(samples(3, 256), 8, RGB, interlaced=True),
        "interlaced_palette2.png": png(samples(1, 4), 2, PALETTE, [palette(4)], interlaced=True),
        "interlaced_grey16.png": png(samples(1, 1024), 16, GREY, interlaced=True),
        "exif6.png": png(samples(3, 256), 8, RGB, [(b"eXIf", exif(6, ">"))]),
        "raw_profile8.png": png(samples(3, 256), 8, RGB, [
            (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(
                f"\nexif\n{32:8}\n{(b'Exif' + bytes(2) + exif(8, '<')).hex()}\n".encode()))]),
        "xmp3.png": png(samples(3, 256), 8, RGB, [
            (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation=\"3\"/>")]),
        "one_pixel.png": png(samples(3, 256, 1, 1), 8, RGB),
        "28x28.png": png(samples(3, 256, 28, 28), 8, RGB),
        "20x4000.png": png(samples(1, 2, 20, 4000), 1, GREY),
        "1x4000.png": png(samples(1, 2, 1, 4000), 1, GREY),
    }
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)


def write_jpegs():
    color = PIL.Image.fromarray(samples(3, 256).astype(numpy.uint8))
    cmyk = PIL.Image.fromarray(samples(4, 256).astype(numpy.uint8), "CMYK")
    for name, subsampling in [("jpeg444", 0), ("jpeg422", 1), ("jpeg420", 2)]:
        color.save(FOLDER / f"{name}.jpg", quality=85, subsampling=subsampling)
    color.save(FOLDER / "progressive.jpg", quality=85, progressive=True)
    color.save(FOLDER / "restart.jpg", quality=85, restart_marker_blocks=2)
    color.convert("L").save(FOLDER / "grey.jpg", quality=85)
    cmyk.save(FOLDER / "cmyk.jpg", quality=85)
    # The Adobe marker's last byte says how colours were transformed: 2 is YCCK.
    data = (FOLDER / "cmyk.jpg").read_bytes()
    at = data.index(b"Adobe") + 11
    (FOLDER / "ycck.jpg").write_bytes(data[:at] + b"\x02" + data[at + 1:])
    for orientation in range(1, 9):
        color.save(FOLDER / f"exif{orientation}.jpg", quality=85,
                   exif=b"Exif\0\0" + exif(orientation, "<" if orientation % 2 else ">"))
    color.save(FOLDER / "xmp6.jpg", quality=85, xmp=b"<tiff:Orientation>6</tiff:Orientation>")
    slopes = numpy.add.outer(numpy.arange(800), numpy.arange(1333))[..., None] * numpy.array([1, 2, 3]) // 9 % 256
    PIL.Image.fromarray(slopes.astype(numpy.uint8)).save(FOLDER / "1333x800.jpg", quality=30)


def main():
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    write_pngs()
    write_jpegs()
    processor = Qwen2VLImageProcessorPil()
    tensors = {}
    for path in sorted(FOLDER.iterdir()):
        rgb = numpy.array(processor.fetch_images(str(path)))
        large = rgb.size > 100000
        tensors[f"{path.name}.size"] = numpy.array(rgb.shape[:2], dtype=numpy.int64)
        tensors[f"{path.name}.rgb"] = numpy.ascontiguousarray(rgb[::STRIDE] if large else rgb)
        if max(rgb.shape[:2]) / min(rgb.shape[:2]) > 200:
            continue  # the processor refuses it
        result = processor([str(path)], return_tensors="np")
        tensors[f"{path.name}.grid"] = result["image_grid_thw"][0]
        if path.name in WITH_PATCHES:
            tensors[f"{path.name}.patches"] = numpy.ascontiguousarray(result["pixel_values"][::STRIDE])
    safetensors.numpy.save_file(tensors, HERE / "image_files.safetensors",
                                metadata={"transformers": transformers.__version__, "pillow": PIL.__version__,
                                          "libjpeg_turbo": PIL.features.version("libjpeg_turbo"),
                                          "python": sys.version.split()[0], "stride": str(STRIDE)})


if __name__ == "__main__":
    main()
