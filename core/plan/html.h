// Pieces of the pages that reports are written as.
#pragma once

#include <array>
#include <charconv>
#include <string>

#include "attnmux/mask.h"
#include "attnmux/mask_report.h"

namespace attnmux {

inline constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,sans-serif;color:#1c2330;background:#fff;margin:2rem auto;max-width:60rem;"
    "padding:0 1rem}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid "
    "#dde2ea;"
    "vertical-align:top}.row th{font-weight:normal;color:#5b6575}.row{display:flex;flex-wrap:wrap;column-gap:4rem}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}"
    "figure{margin:1rem 0}svg{max-width:100%;height:auto}p.note{color:#5b6575}";

inline std::string escaped(const std::string& text) {
  std::string result;
  for (char c : text) {
    switch (c) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += c;
    }
  }
  return result;
}

inline std::string count(int64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(i, 1, ',');
  return digits;
}

// "3.14", in every locale.
inline std::string decimal(double value, int digits) {
  std::array<char, 64> text;
  return {text.data(), std::to_chars(text.begin(), text.end(), value, std::chars_format::fixed, digits).ptr};
}

inline std::string percent(double share) { return decimal(share * 100, 2) + " %"; }

inline std::string range_text(const Range& r) {
  std::string text = "[";
  return text.append(count(r.begin)).append(", ").append(count(r.end)).append(")");
}

inline std::string row(const std::string& name, const std::string& value) {
  return "<tr><th>" + name + "</th><td class=\"n\">" + value + "</td></tr>\n";
}

inline std::string figure(const std::string& svg) { return "<figure>" + svg + "</figure>\n"; }

// One file that opens offline.
inline std::string page(const std::string& title, const std::string& body) {
  return "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width\"><title>" +
         escaped(title) + " - attnmux plan</title><style>" + kStyle + "</style></head><body>\n<h1>Mask " +
         escaped(title) + "</h1>\n" + body + "</body></html>\n";
}

// What any report says about a mask: numbers, tile plan, slices.
std::string mask_sections(const AttnMaskSpec& mask, const MaskReport& report);

}  // namespace attnmux
