#include <nlohmann/json.hpp>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/mask_report.h"
#include "tools/attnmux/command.h"
#include "tools/attnmux/values.h"

namespace attnmux::tool {

using nlohmann::ordered_json;

int run_bench_plan(const Arguments& arguments) {
  std::string masks, tiles = "128";
  int64_t repetitions = 20;
  bool json = false;
  Flags flags({.name = "bench plan",
               .usage = "--mask M[;M...] [flags]",
               .about = "Measures how long the tile plan of a mask takes: the median over the repetitions.",
               .examples = {"attnmux bench plan --mask \"causal:1048576;window:1048576,left=1023,right=0\" --json"}});
  flags.add("mask", masks, Need::kRequired, "M[;M...]", "masks as in `attnmux plan --help`");
  flags.add("tile", tiles, Need::kOptional, "T[,T...]", "tokens a tile: powers of two from 16 to 1024");
  flags.add("reps", repetitions, "N", "repetitions");
  flags.add("json", json, "answer as one JSON document");
  if (!flags.parse(arguments)) return 0;
  if (repetitions < 1 || repetitions > 1'000'000) {
    throw Error(ErrorCode::kUsage,
                "attnmux bench plan --reps " + std::to_string(repetitions) + ": 1 to 1,000,000 is expected");
  }

  ordered_json document = ordered_json::array();
  std::vector<std::vector<std::string>> table{{"mask", "area", "tile", "runs", "bytes", "plan_ms"}};
  for (const std::string& text : split(masks, ';', "mask")) {
    const AttnMaskSpec mask = parse_mask(text);
    for (const std::string& tile : split(tiles, ',', "tile")) {
      const MaskReport report = make_mask_report(mask, parse_tile_shape(tile, "tile"), static_cast<int>(repetitions));
      document.push_back({{"mask", text},
                          {"area", report.area},
                          {"tile", report.tiles.shape.q},
                          {"runs", report.tiles.runs},
                          {"bytes", report.tiles.bytes},
                          {"plan_ms", report.plan_ms}});
      table.push_back({text, with_separators(report.area), tile, with_separators(report.tiles.runs),
                       with_separators(report.tiles.bytes), fixed(report.plan_ms, 3)});
    }
  }
  if (json) {
    print_json(document);
  } else {
    print_table(table);
  }
  return 0;
}

}  // namespace attnmux::tool
