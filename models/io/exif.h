// Which way up an image is, out of its EXIF or XMP data. Pure functions on any bytes.
#pragma once

#include <string_view>

namespace attnmux {

// The tag 0x0112 of the first directory; 0 where there is none or the data is no EXIF. "Exif\0\0" in front is skipped.
int exif_orientation(std::string_view exif);

// tiff:Orientation="6" or <tiff:Orientation>6; 0 where there is none.
int xmp_orientation(std::string_view xmp);

}  // namespace attnmux
