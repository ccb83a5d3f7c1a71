// What the pictures of plans have in common: a frame with heading and remark, boxes, lines and words.
#pragma once

#include <cstdint>
#include <locale>
#include <sstream>
#include <string>

#include "../mask/svg_text.h"

namespace attnmux {

// Pixels.
inline constexpr double kLeft = 72;
inline constexpr double kWidth = 640;
inline constexpr double kRight = 110;
inline constexpr double kTop = 76;

// A picture under construction.
class Picture {
 public:
  Picture(double height, const std::string& title, const std::string& remark) {
    svg_.imbue(std::locale::classic());
    const Number width{kLeft + kWidth + kRight};
    svg_ << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << Number{height}
         << "' viewBox='0 0 " << width << " " << Number{height}
         << "' font-family='system-ui, \"DejaVu Sans\", sans-serif' font-size='12' fill='#5b6472'>\n"
         << "<rect width='100%' height='100%' rx='10' fill='#fff'/>\n<text x='" << Number{kLeft}
         << "' y='28' font-size='16' font-weight='600' fill='#1c2333'>" << Escaped{title} << "</text>\n<text x='"
         << Number{kLeft} << "' y='50'>" << Escaped{remark} << "</text>\n";
  }

  std::ostream& out() { return svg_; }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    svg_ << "<path d='M" << Number{x1} << " " << Number{y1} << "L" << Number{x2} << " " << Number{y2} << "' " << style
         << "/>\n";
  }
  void text(double x, double y, const char* anchor, const std::string& words) {
    svg_ << "<text x='" << Number{x} << "' y='" << Number{y} << "' text-anchor='" << anchor << "'>" << Escaped{words}
         << "</text>\n";
  }
  void box(double x, double y, double width, double height, const std::string& color, const std::string& hint) {
    svg_ << "<rect x='" << Number{x} << "' y='" << Number{y} << "' width='" << Number{width} << "' height='"
         << Number{height} << "' fill='" << color << "'>";
    if (!hint.empty()) svg_ << "<title>" << Escaped{hint} << "</title>";
    svg_ << "</rect>\n";
  }
  std::string finish() {
    svg_ << "</svg>\n";
    return svg_.str();
  }

 private:
  std::ostringstream svg_;
};

inline std::string fixed(double value, int digits) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text.setf(std::ios::fixed);
  text.precision(digits);
  text << value;
  return text.str();
}

inline std::string duration(double seconds) {
  if (seconds >= 1) return fixed(seconds, 2) + " s";
  if (seconds >= 1e-3) return fixed(seconds * 1e3, 2) + " ms";
  return fixed(seconds * 1e6, 1) + " µs";
}

}  // namespace attnmux
