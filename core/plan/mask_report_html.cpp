#include <cstdio>

#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"

namespace attnmux {
namespace {

constexpr size_t kSlicesShown = 200;
constexpr const char* kStyle =
    "body{font:15px/1.5 system-ui,sans-serif;color:#1c2330;background:#fff;margin:2rem auto;max-width:60rem;"
    "padding:0 1rem}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin-top:2rem}"
    "table{border-collapse:collapse}td,th{padding:.25rem .9rem .25rem 0;text-align:left;border-bottom:1px solid "
    "#dde2ea;"
    "vertical-align:top}.row th{font-weight:normal;color:#5b6575}.row{display:flex;flex-wrap:wrap;column-gap:4rem}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.9em}"
    "figure{margin:1rem 0}svg{max-width:100%;height:auto}p.note{color:#5b6575}";

std::string escaped(const std::string& text) {
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

std::string count(int64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > 0; i -= 3) digits.insert(i, 1, ',');
  return digits;
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", share * 100);
  return text;
}

std::string row(const std::string& name, const std::string& value) {
  return "<tr><th>" + name + "</th><td class=\"n\">" + value + "</td></tr>\n";
}

std::string type_name(MaskType type) {
  switch (type) {
    case MaskType::kFull: return "full";
    case MaskType::kCausal: return "causal";
    case MaskType::kInvCausal: return "inv_causal";
    case MaskType::kBiCausal: return "bi_causal";
  }
  return "";
}

std::string range(const Range& r) { return std::string("[") + count(r.begin) + ", " + count(r.end) + ")"; }

std::string slice_table(const AttnMaskSpec& mask) {
  std::string html = "<table><tr><th>slice</th><th>queries</th><th>keys</th><th>type</th><th>pairs</th></tr>\n";
  const size_t shown = std::min(mask.slices().size(), kSlicesShown);
  for (size_t i = 0; i < shown; ++i) {
    const AttnSlice& slice = mask.slices()[i];
    html += "<tr><td class=\"n\">" + std::to_string(i) + "</td><td>" + range(slice.q) + "</td><td>" + range(slice.k) +
            "</td><td>" + type_name(slice.type) + "</td><td class=\"n\">" + count(area(slice)) + "</td></tr>\n";
  }
  html += "</table>\n";
  if (shown < mask.slices().size()) {
    html += "<p class=\"note\">and " + count(static_cast<int64_t>(mask.slices().size() - shown)) + " more</p>\n";
  }
  return html;
}

}  // namespace

std::string mask_report_html(const AttnMaskSpec& mask, const MaskReport& report, const std::string& title) {
  const TilePlanSummary& tiles = report.tiles;
  char plan_ms[32];
  std::snprintf(plan_ms, sizeof plan_ms, "%.3f ms", report.plan_ms);
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>" +
      escaped(title) + " - attnmux plan</title><style>" + kStyle + "</style></head><body>\n<h1>Mask " + escaped(title) +
      "</h1>\n<figure>" + mask_to_svg(mask, {.size_px = 720}) + "</figure>\n";
  html += "<div class=\"row\"><section><h2>Mask</h2>\n<table>" + row("queries", count(report.total_q)) +
          row("keys", count(report.total_k)) + row("attended pairs", count(report.area)) +
          row("of all pairs", percent(report.density)) + row("family", std::string(to_string(report.family))) +
          row("queries without keys", count(report.rows_without_keys)) +
          row("slices", count(static_cast<int64_t>(mask.slices().size()))) +
          row("hash", "<code>" + to_string(report.hash) + "</code>") + "</table></section>\n";
  html += "<section><h2>Tile plan</h2>\n<table>" +
          row("tile", std::to_string(tiles.shape.q) + " queries x " + std::to_string(tiles.shape.k) + " keys") +
          row("tiles, all pairs attended", count(tiles.unmasked_tiles)) +
          row("tiles, some pairs attended", count(tiles.partial_tiles)) +
          row("tiles never visited", count(tiles.empty_tiles)) + row("runs", count(tiles.runs)) +
          row("distinct partial tiles stored", count(tiles.distinct_masks)) + row("bytes", count(tiles.bytes)) +
          row("attended pairs / pairs of visited tiles", percent(tiles.efficiency)) +
          row("time to plan, median", plan_ms) + "</table></section></div>\n";
  if (!report.overlaps.empty()) {
    html += "<p class=\"note\">Slices overlap; a pair covered twice counts once:</p><ul>\n";
    for (const std::string& line : report.overlaps) html += "<li>" + escaped(line) + "</li>\n";
    html += "</ul>\n";
  }
  return html + "<h2>Slices</h2>\n" + slice_table(mask) + "</body></html>\n";
}

}  // namespace attnmux
