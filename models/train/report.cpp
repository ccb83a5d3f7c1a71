#include "models/train/report.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <sstream>

#include "attnmux/mask_io.h"
#include "attnmux/plan_report.h"
#include "models/io/atomic_file.h"
#include "models/train/svg_chart.h"
#include "models/train/trainer.h"

namespace attnmux {
namespace {

constexpr char kStyle[] = R"(
:root { --bg: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #667085; --grid: #e4e7ec; --s0: #2563eb; --s1: #e8590c;
  --line: #e4e7ec; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --bg: #10141b; --card: #181e28; --ink: #e6eaf0; --soft: #93a0b4;
  --grid: #273040; --s0: #6ea8fe; --s1: #ffa94d; --line: #273040; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 60px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -0.01em; } h2 { font-size: 16px; margin: 0 0 12px; }
.sub { color: var(--soft); margin: 4px 0 24px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 14px; margin-bottom: 14px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.tile b { display: block; font-size: 23px; font-weight: 650; letter-spacing: -0.01em; }
.tile span { color: var(--soft); font-size: 13px; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 14px; margin-bottom: 14px; }
.wide { margin-bottom: 14px; }
.chart { width: 100%; height: auto; display: block; }
.chart .grid { stroke: var(--grid); } .chart .tick, .chart .unit { fill: var(--soft); font: 12px system-ui, sans-serif; }
.chart .title { fill: var(--ink); font: 600 15px system-ui, sans-serif; }
.chart .value { font: 600 13px system-ui, sans-serif; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--s0); } .line.s1 { stroke: var(--s1); }
.dot.s0, .value.s0 { fill: var(--s0); } .dot.s1, .value.s1 { fill: var(--s1); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; padding: 7px 14px 7px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; } th { color: var(--soft); font-weight: 500; font-size: 13px; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
.mask { background: #fff; border-radius: 8px; padding: 8px; } .mask svg { width: 100%; height: auto; display: block; }
.note { color: var(--soft); font-size: 13px; margin: 10px 0 0; }
pre { margin: 12px 0 0; overflow-x: auto; font-size: 13px; } summary { cursor: pointer; font-weight: 600; }
)";

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::string bytes_text(int64_t bytes) { return number_text(static_cast<double>(bytes) / (1 << 30), 3) + " GiB"; }

using Points = std::vector<std::pair<double, double>>;

Points curve(const std::vector<StepMetrics>& metrics, const std::function<double(const StepMetrics&)>& value) {
  Points points;
  for (const StepMetrics& m : metrics) {
    if (m.step > 0) points.emplace_back(m.step, value(m));
  }
  return points;
}

Points heldout_points(const std::vector<StepMetrics>& metrics) {
  Points points;
  for (const StepMetrics& m : metrics) {
    if (m.heldout_loss) points.emplace_back(m.step, *m.heldout_loss);
  }
  return points;
}

void tile(std::ostringstream& html, const std::string& value, const std::string& label) {
  html << "<div class=\"tile\"><b>" << value << "</b><span>" << escape_html(label) << "</span></div>\n";
}

void tiles(std::ostringstream& html, const std::vector<StepMetrics>& metrics) {
  const Points heldout = heldout_points(metrics);
  const Points losses = curve(metrics, [](const StepMetrics& m) { return m.loss; });
  int64_t tokens = 0, peak = 0;
  std::vector<double> speeds;
  for (const StepMetrics& m : metrics) {
    tokens += m.tokens;
    peak = std::max(peak, m.peak_bytes);
    if (m.step > 0) speeds.push_back(m.tokens_per_s);
  }
  html << "<div class=\"tiles\">\n";
  if (heldout.size() > 1) {
    tile(html, number_text(heldout.front().second, 4) + " → " + number_text(heldout.back().second, 4),
         "held-out loss, before and after");
  }
  if (!losses.empty()) {
    tile(html, number_text(losses.front().second, 4) + " → " + number_text(losses.back().second, 4),
         "training loss, first and last step");
  }
  tile(html, number_text(static_cast<double>(losses.size()), 9), "steps");
  tile(html, number_text(static_cast<double>(tokens), 9), "tokens");
  tile(html, number_text(median(speeds), 4), "tokens a second, median");
  tile(html, bytes_text(peak), "largest memory");
  html << "</div>\n";
}

void charts(std::ostringstream& html, const std::vector<StepMetrics>& metrics) {
  Chart loss{.title = "Loss",
             .unit = "nats a token",
             .series = {{.name = "training", .points = curve(metrics, [](const auto& m) { return m.loss; })}},
             .width = 1120,
             .height = 340};
  const Points heldout = heldout_points(metrics);
  if (!heldout.empty()) loss.series.push_back({.name = "held out", .points = heldout, .markers = true});
  html << "<div class=\"card wide\">" << line_chart(loss) << "</div>\n<div class=\"grid2\">\n";
  const auto small = [&](const char* title, const char* unit, const std::function<double(const StepMetrics&)>& value) {
    html << "<div class=\"card\">"
         << line_chart({.title = title,
                        .unit = unit,
                        .series = {{.name = title, .points = curve(metrics, value)}},
                        .from_zero = true,
                        .width = 560,
                        .height = 250})
         << "</div>\n";
  };
  small("Throughput", "tokens a second", [](const auto& m) { return m.tokens_per_s; });
  small("Gradient norm", "before clipping", [](const auto& m) { return m.grad_norm; });
  small("Learning rate", "", [](const auto& m) { return m.lr; });
  small("Memory", "GiB, largest so far", [](const auto& m) { return static_cast<double>(m.peak_bytes) / (1 << 30); });
  html << "</div>\n";
}

PackedBatch first_sequence(const TrainPlan& plan) {
  DocumentPacker packer(plan.documents, {.seq_len = plan.config.data.seq_len,
                                         .packing = plan.config.data.packing,
                                         .seed = static_cast<uint64_t>(plan.config.train.seed)});
  return *packer.next();
}

void backend_table(std::ostringstream& html, const SelectionTable& table) {
  struct Row {
    std::vector<std::string> modules;
    int64_t fell_back = 0;
  };
  std::map<std::pair<std::string, std::string>, Row> rows;  // backend, origin of its rule
  for (const ModuleChoice& choice : table.choices()) {
    Row& row = rows[{choice.backend_id, choice.rule.origin}];
    row.modules.push_back(choice.module.path);
    row.fell_back += choice.fell_back;
  }
  html << "<table><tr><th>backend</th><th class=\"num\">modules</th><th>first, last</th><th>chosen by</th>"
          "<th class=\"num\">fallbacks</th></tr>";
  for (const auto& [key, row] : rows) {
    html << "<tr><td><b>" << escape_html(key.first) << "</b></td><td class=\"num\">" << row.modules.size()
         << "</td><td>" << escape_html(row.modules.front()) << "<br>" << escape_html(row.modules.back()) << "</td><td>"
         << escape_html(key.second) << "</td><td class=\"num\">" << row.fell_back << "</td></tr>";
  }
  html << "</table>";
}

// The mask in the colours of the ranks that own its rows, and how even their work is.
void mask_on_ranks(std::ostringstream& html, const AttnMaskSpec& mask, const ParallelSection& parallel) {
  const DispatchPlan dispatch =
      plan_dispatch(mask, {.cp = parallel.cp, .chunk_size = std::min<int64_t>(parallel.chunk_size, mask.total_q())});
  html << "<div class=\"mask\">" << dispatch_to_svg(mask, dispatch, {.size_px = 520, .title = ""})
       << "</div><div class=\"mask\">" << balance_to_svg(dispatch) << "</div><p class=\"note\">" << parallel.cp
       << " ranks share each sequence, chunks of " << dispatch.options.chunk_size
       << " tokens: a row has the colour of the rank that owns its token.</p>";
}

void mask_and_backends(std::ostringstream& html, const TrainPlan& plan) {
  const PackedBatch batch = first_sequence(plan);
  html << "<div class=\"grid2\"><div class=\"card\"><h2>Mask of the first packed sequence</h2>";
  if (plan.config.parallel.cp > 1) {
    mask_on_ranks(html, batch.mask, plan.config.parallel);
  } else {
    html << "<div class=\"mask\">" << mask_to_svg(batch.mask, {.size_px = 520, .title = ""}) << "</div>";
  }
  html << "<p class=\"note\">" << batch.seqlens.size() << " segments in " << plan.config.data.seq_len
       << " tokens. Each triangle is one document: a token sees what came before it in its own document and nothing of "
          "its neighbours.</p></div>\n<div class=\"card\"><h2>Attention backends</h2>";
  backend_table(html, *plan.table);
  html << "<p class=\"note\">Every step has proved that each of these modules used the step's own mask, forward and "
          "backward, on the backend named here.</p></div></div>\n";
}

}  // namespace

void write_report(const TrainPlan& plan, const std::vector<StepMetrics>& metrics, const std::string& path) {
  const TrainConfig& config = plan.config;
  const std::string model = std::filesystem::path(config.model.path).filename().string();
  std::ostringstream html;
  html << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>"
       << escape_html(model) << " · attnmux</title><style>" << kStyle << "</style></head><body><main>\n<h1>"
       << escape_html(model) << "</h1><p class=\"sub\">" << plan.documents->size() << " documents, "
       << number_text(static_cast<double>(count_tokens(*plan.documents)), 9) << " tokens · sequences of "
       << config.data.seq_len << " · " << config.train.dtype << " · " << escape_html(config.train.output) << "</p>\n";
  tiles(html, metrics);
  charts(html, metrics);
  mask_and_backends(html, plan);
  html << "<details class=\"card\"><summary>Configuration</summary><pre>" << escape_html(to_toml(config))
       << "</pre></details>\n</main></body></html>\n";
  write_file_atomically(path, html.str());
}

}  // namespace attnmux
