// How pictures write numbers and texts: the same in every locale.
#pragma once

#include <array>
#include <charconv>
#include <cstdint>
#include <ostream>
#include <string>

namespace attnmux {

// Written with at most `digits` >= 1 digits behind the point.
struct Number {
  double value;
  int digits = 2;
  friend std::ostream& operator<<(std::ostream& out, Number number) {
    std::array<char, 64> text;
    char* end = std::to_chars(text.begin(), text.end(), number.value, std::chars_format::fixed, number.digits).ptr;
    while (end[-1] == '0') --end;
    if (end[-1] == '.') --end;
    return out.write(text.data(), end - text.data());
  }
};

struct Escaped {
  const std::string& text;
  friend std::ostream& operator<<(std::ostream& out, Escaped escaped) {
    for (const char c : escaped.text) {
      switch (c) {
        case '&': out << "&amp;"; break;
        case '<': out << "&lt;"; break;
        case '>': out << "&gt;"; break;
        default: out << (static_cast<unsigned char>(c) < 0x20 ? ' ' : c);  // XML knows no control characters
      }
    }
    return out;
  }
};

inline std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t at = std::ssize(digits) - 3; at > 0; at -= 3) digits.insert(at, 1, ',');
  return digits;
}

// 1, 2 or 5 times a power of ten, for at most `most` steps.
inline int64_t tick_step(int64_t total, int64_t most) {
  for (int64_t power = 1;; power *= 10) {
    for (const int64_t step : {power, 2 * power, 5 * power}) {
      if (total / step <= most) return step;
    }
  }
}

inline std::string tick_label(int64_t value, int64_t step) {
  if (value == 0) return "0";
  if (step % 1000000000 == 0) return std::to_string(value / 1000000000).append("G");
  if (step % 1000000 == 0) return std::to_string(value / 1000000).append("M");
  if (step % 1000 == 0) return std::to_string(value / 1000).append("k");
  return std::to_string(value);
}

}  // namespace attnmux
