#include <iostream>
#include <nlohmann/json.hpp>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "models/io/atomic_file.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {
namespace {

using nlohmann::ordered_json;

ordered_json to_json(const AttnMaskSpec& mask, const MaskReport& report) {
  const TilePlanSummary& tiles = report.tiles;
  ordered_json slices = ordered_json::parse(mask_to_json(mask)).at("slices");
  return {{"mask",
           {{"total_q", report.total_q},
            {"total_k", report.total_k},
            {"area", report.area},
            {"slices", std::move(slices)},
            {"hash", to_string(report.hash)},
            {"family", std::string(to_string(report.family))},
            {"density", report.density},
            {"rows_without_keys", report.rows_without_keys},
            {"overlaps", report.overlaps}}},
          {"cp", 1},
          {"tile_plan",
           {{"tile", {tiles.shape.q, tiles.shape.k}},
            {"tiles", {tiles.q_tiles, tiles.k_tiles}},
            {"unmasked", tiles.unmasked_tiles},
            {"partial", tiles.partial_tiles},
            {"empty", tiles.empty_tiles},
            {"runs", tiles.runs},
            {"distinct_masks", tiles.distinct_masks},
            {"bytes", tiles.bytes},
            {"efficiency", tiles.efficiency}}},
          {"plan_ms", report.plan_ms}};
}

void print(const AttnMaskSpec& mask, const MaskReport& report) {
  const TilePlanSummary& tiles = report.tiles;
  print_table(
      {{"mask", ""},
       {"  queries x keys", with_separators(report.total_q) + " x " + with_separators(report.total_k)},
       {"  attended pairs", with_separators(report.area) + "  (" + fixed(report.density * 100, 2) + " % of all)"},
       {"  family", std::string(to_string(report.family))},
       {"  queries without keys", with_separators(report.rows_without_keys)},
       {"  slices", with_separators(static_cast<int64_t>(mask.slices().size()))},
       {"  hash", to_string(report.hash)},
       {"tile plan", ""},
       {"  tile", std::to_string(tiles.shape.q) + " x " + std::to_string(tiles.shape.k)},
       {"  tiles unmasked", with_separators(tiles.unmasked_tiles)},
       {"  tiles partial", with_separators(tiles.partial_tiles) + "  (" + with_separators(tiles.distinct_masks) +
                               " distinct masks stored)"},
       {"  tiles never visited", with_separators(tiles.empty_tiles)},
       {"  runs, bytes", with_separators(tiles.runs) + ", " + with_separators(tiles.bytes)},
       {"  efficiency", fixed(tiles.efficiency * 100, 2) + " %  (attended pairs / pairs of visited tiles)"},
       {"  time to plan", fixed(report.plan_ms, 3) + " ms, median"}});
  for (const std::string& line : report.overlaps) std::cout << "note: " << line << "; such pairs count once\n";
}

}  // namespace

int run_plan(const Arguments& arguments) {
  std::string mask_text, svg, html, tile = "128";
  int64_t cp = 1;

  bool json = false;
  Flags flags(
      {.name = "plan",
       .usage = "--mask M [--json] [--svg FILE] [--html FILE]",
       .about =
           "Shows what a mask is before anything runs: its exact area, its content hash, the tile plan that kernels\n"
           "walk, and pictures of it.\n\n"
           "Masks: full:N  full:QxK  causal:N  causal:QxK  varlen:100,200  varlen-full:100,200\n"
           "  window:N,left=L,right=R[,sink=S]  prefix-lm:100+300,50+20  block-causal:B,B  chunked:N,chunk=C\n"
           "  tree:FILE.json  bidirectional-spans:N,A-B,C-D  FILE.json",
       .examples = {"attnmux plan --mask varlen:1000,3000,96 --html plan.html",
                    "attnmux plan --mask window:8192,left=1023,right=0 --json | jq .mask.area"}});
  flags.add("mask", mask_text, Need::kRequired, "M", "the mask, as text or FILE.json");
  flags.add("cp", cp, "N", "ranks; this version plans for one");
  flags.add("tile", tile, Need::kOptional, "T", "tokens a tile: a power of two from 16 to 1024");
  flags.add("json", json, "answer as one JSON document");
  flags.add("svg", svg, Need::kOptional, "FILE", "write the mask's picture");
  flags.add("html", html, Need::kOptional, "FILE", "write one page with picture and numbers; it opens offline");
  if (!flags.parse(arguments)) return 0;
  if (cp != 1) {
    throw Error(ErrorCode::kUsage, "attnmux plan --cp " + std::to_string(cp) +
                                       ": this version plans for one rank; sharding over a context-parallel group is "
                                       "not built yet. Leave --cp out");
  }
  const AttnMaskSpec mask = parse_mask(mask_text);
  const MaskReport report = make_mask_report(mask, parse_tile_shape(tile, "tile"), /*repetitions=*/5);
  if (!svg.empty()) write_file_atomically(svg, mask_to_svg(mask, {.title = mask_text}));
  if (!html.empty()) write_file_atomically(html, mask_report_html(mask, report, mask_text));
  if (json) {
    print_json(to_json(mask, report));
  } else {
    print(mask, report);
  }
  return 0;
}

}  // namespace attnmux::tool
