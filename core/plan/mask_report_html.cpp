#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "html.h"

namespace attnmux {
namespace {

constexpr size_t kSlicesShown = 200;
std::string type_name(MaskType type) {
  switch (type) {
    case MaskType::kFull: return "full";
    case MaskType::kCausal: return "causal";
    case MaskType::kInvCausal: return "inv_causal";
    case MaskType::kBiCausal: return "bi_causal";
  }
  return "";
}

std::string slice_table(const AttnMaskSpec& mask) {
  std::string html = "<table><tr><th>slice</th><th>queries</th><th>keys</th><th>type</th><th>pairs</th></tr>\n";
  const size_t shown = std::min(mask.slices().size(), kSlicesShown);
  for (size_t i = 0; i < shown; ++i) {
    const AttnSlice& slice = mask.slices()[i];
    html += "<tr><td class=\"n\">" + std::to_string(i) + "</td><td>" + range_text(slice.q) + "</td><td>" +
            range_text(slice.k) + "</td><td>" + type_name(slice.type) + "</td><td class=\"n\">" + count(area(slice)) +
            "</td></tr>\n";
  }
  html += "</table>\n";
  if (shown < mask.slices().size()) {
    html += "<p class=\"note\">and " + count(static_cast<int64_t>(mask.slices().size() - shown)) + " more</p>\n";
  }
  return html;
}

}  // namespace

std::string mask_sections(const AttnMaskSpec& mask, const MaskReport& report) {
  const TilePlanSummary& tiles = report.tiles;
  std::string html = "<div class=\"row\"><section><h2>Mask</h2>\n<table>" + row("queries", count(report.total_q)) +
                     row("keys", count(report.total_k)) + row("attended pairs", count(report.area)) +
                     row("of all pairs", percent(report.density)) +
                     row("family", std::string(to_string(report.family))) +
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
          row("time to plan, median", decimal(report.plan_ms, 3) + " ms") + "</table></section></div>\n";
  if (!report.overlaps.empty()) {
    html += "<p class=\"note\">Slices overlap; a pair covered twice counts once:</p><ul>\n";
    for (const std::string& line : report.overlaps) html += "<li>" + escaped(line) + "</li>\n";
    html += "</ul>\n";
  }
  return html + "<h2>Slices</h2>\n" + slice_table(mask);
}

}  // namespace attnmux
