#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <locale>
#include <numeric>
#include <sstream>

#include "../mask/mask_drawing.h"
#include "attnmux/plan_report.h"
#include "picture.h"

namespace attnmux {
namespace {

constexpr int64_t kMostStripes = 2048;
constexpr int64_t kMostTimelines = 6;
// Pixels.
constexpr double kBars = 190;
constexpr double kLane = 20;
constexpr double kNarrowestLabel = 46;

constexpr const char* kAttention = "#4361c2";
constexpr const char* kExchange = "#e8a13a";
constexpr const char* kGradients = "#1f9e89";
constexpr const char* kWaiting = "#f2b3ba";
constexpr std::array<const char*, 8> kRanks = {"#4361c2", "#1f9e89", "#e8a13a", "#d1495b",
                                               "#7b52ab", "#3fa7d6", "#8a6d3b", "#5c6b7a"};

// Few ranks: hues far apart. Many: neighbours alike, from blue through green to red, so that structure shows.
std::string color_of(int64_t rank, int64_t ranks) {
  if (ranks <= std::ssize(kRanks)) return kRanks[rank];
  const double hue = 230 - 230 * static_cast<double>(rank) / static_cast<double>(ranks - 1);
  constexpr double kSaturation = 0.62, kLightness = 0.5;
  const auto channel = [&](double offset) {
    const double k = std::fmod(offset + hue / 30, 12);
    const double value = kLightness - kSaturation * kLightness * std::max(-1.0, std::min({k - 3, 9 - k, 1.0}));
    return static_cast<int>(std::lround(255 * value));
  };
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << "rgb(" << channel(0) << "," << channel(8) << "," << channel(4) << ")";
  return text.str();
}

struct RankTimeline {
  int32_t rank = 0;
  std::array<std::vector<TimelineSpan>, 2> passes;  // forward, backward
  double length(size_t pass) const {
    double end = 0;
    for (const TimelineSpan& span : passes[pass]) end = std::max(end, span.end_s);
    return end;
  }
};

std::vector<RankTimeline> slowest_first(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape) {
  std::vector<RankTimeline> lines;
  const std::vector<RankWork> work = plan.work();
  for (int32_t rank = 0; rank < std::ssize(work); ++rank) {
    lines.push_back(
        {rank,
         {timeline(work[rank], model, shape, Pass::kForward), timeline(work[rank], model, shape, Pass::kBackward)}});
  }
  const auto step = [](const RankTimeline& line) { return line.length(0) + line.length(1); };
  std::stable_sort(lines.begin(), lines.end(),
                   [&](const RankTimeline& a, const RankTimeline& b) { return step(a) > step(b); });
  if (std::ssize(lines) > kMostTimelines) lines.resize(kMostTimelines);
  return lines;
}

const char* color_of(const TimelineSpan& span) {
  return span.gradients ? kGradients : span.exchange ? kExchange : kAttention;
}

void draw_span(const TimelineSpan& span, double x, double width, double y, Picture* chart) {
  const std::string name = span.stage < 0 ? "own keys" : "stage " + std::to_string(span.stage);
  const std::string what = span.gradients ? "gradients home, " : span.exchange ? "keys and values, " : "attention, ";
  chart->box(x, y, std::max(width - 0.7, 0.4), kLane - 3, color_of(span),
             what + name + ": " + duration(span.end_s - span.begin_s));
  if (width < kNarrowestLabel + (span.stage < 0 ? 12 : 0)) return;
  chart->out() << "<g fill='#fff' font-size='10.5'>";
  chart->text(x + width / 2, y + 12.5, "middle", name);
  chart->out() << "</g>";
}

double height_of(const std::string& svg) {
  const char* text = svg.data() + svg.find("height='") + 8;
  double height = 0;
  std::from_chars(text, svg.data() + svg.size(), height);
  return height;
}

}  // namespace

std::string dispatch_to_svg(const AttnMaskSpec& mask, const DispatchPlan& dispatch, const SvgOptions& options) {
  const int64_t chunks = std::ssize(dispatch.chunk_areas);
  std::vector<size_t> rank_of(chunks);
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    for (const int32_t chunk : dispatch.chunks_of_rank[rank]) rank_of[chunk] = rank;
  }
  std::vector<MaskLook> looks;
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    looks.push_back({"rank " + std::to_string(rank), color_of(rank, dispatch.size())});
  }
  const int64_t step = std::max<int64_t>((chunks + kMostStripes - 1) / kMostStripes, 1);  // chunks of one stripe
  std::vector<MaskPart> parts;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    Trapezoid rest = *to_trapezoid(slice);
    while (rest.height() > 0) {
      const int64_t stripe = rest.q0 / dispatch.options.chunk_size / step;
      Trapezoid part = rest;
      part.q1 = std::min(rest.q1, dispatch.chunk(static_cast<int32_t>(std::min((stripe + 1) * step, chunks) - 1)).end);
      parts.push_back({part, rank_of[stripe * step]});
      rest.q0 = part.q1;
    }
  }
  return draw_mask(mask, looks, parts, options);
}

std::string balance_to_svg(const DispatchPlan& dispatch) {
  std::vector<int64_t> areas(dispatch.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) areas[rank] = dispatch.area_of(rank);
  const int64_t largest = std::max<int64_t>(*std::max_element(areas.begin(), areas.end()), 1);
  const double mean =
      static_cast<double>(std::accumulate(areas.begin(), areas.end(), int64_t{0})) / static_cast<double>(areas.size());
  Picture chart(kTop + kBars + 44, "Attended pairs of each rank",
                std::to_string(areas.size()) + " ranks · largest / mean = " + fixed(dispatch.balance(), 4));
  const double scale = kBars / static_cast<double>(largest);
  const int64_t tick = tick_step(largest, 5);
  for (int64_t value = 0; value <= largest; value += tick) {
    const double y = kTop + kBars - static_cast<double>(value) * scale;
    chart.line(kLeft, y, kLeft + kWidth, y, "stroke='#e3e8f0'");
    chart.text(kLeft - 8, y + 4, "end", tick_label(value, tick));
  }
  const double step = kWidth / static_cast<double>(areas.size());
  for (int32_t rank = 0; rank < dispatch.size(); ++rank) {
    const double height = static_cast<double>(areas[rank]) * scale;
    chart.box(kLeft + rank * step, kTop + kBars - height, step > 4 ? step * 0.86 : step, height,
              color_of(rank, dispatch.size()), "rank " + std::to_string(rank) + ": " + with_commas(areas[rank]));
  }
  const double y = kTop + kBars - mean * scale;
  chart.line(kLeft, y, kLeft + kWidth, y, "stroke='#1c2333' stroke-dasharray='5 4'");
  chart.text(kLeft + kWidth + 6, y + 4, "start", "mean");
  chart.text(kLeft, kTop + kBars + 20, "start", "rank 0");
  chart.text(kLeft + kWidth, kTop + kBars + 20, "end", "rank " + std::to_string(dispatch.size() - 1));
  return chart.finish();
}

std::string timeline_to_svg(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape) {
  const std::vector<RankTimeline> lines = slowest_first(plan, model, shape);
  std::array<double, 2> longest{};
  for (const RankTimeline& line : lines) {
    for (size_t pass : {0, 1}) longest[pass] = std::max(longest[pass], line.length(pass));
  }
  const double total = std::max(longest[0] + longest[1], 1e-9);
  const double scale = kWidth / total;
  const double rows = static_cast<double>(lines.size()) * (2 * kLane + 12);
  Picture chart(kTop + rows + 76, "Predicted step",
                "slowest rank " + std::to_string(lines.front().rank) + ": forward " +
                    duration(lines.front().length(0)) + ", backward " + duration(lines.front().length(1)) +
                    " · costs: " + model.source);
  double y = kTop;
  for (const RankTimeline& line : lines) {
    chart.text(kLeft - 8, y + kLane + 2, "end", "rank " + std::to_string(line.rank));
    double begin = 0;
    for (size_t pass : {0, 1}) {
      chart.box(kLeft + begin * scale, y, line.length(pass) * scale, kLane - 3, kWaiting, "waiting");
      for (const TimelineSpan& span : line.passes[pass]) {
        if (span.end_s <= span.begin_s) continue;
        draw_span(span, kLeft + (begin + span.begin_s) * scale, (span.end_s - span.begin_s) * scale,
                  y + (span.exchange ? kLane : 0), &chart);
      }
      begin = longest[0];
    }
    y += 2 * kLane + 12;
  }
  chart.line(kLeft + longest[0] * scale, kTop - 12, kLeft + longest[0] * scale, y,
             "stroke='#1c2333' stroke-dasharray='5 4'");
  chart.text(kLeft + longest[0] * scale - 5, kTop - 6, "end", "forward");
  chart.text(kLeft + longest[0] * scale + 5, kTop - 6, "start", "backward");
  chart.line(kLeft, y, kLeft + kWidth, y, "stroke='#9aa4b5'");
  const auto nanoseconds = static_cast<int64_t>(total * 1e9);
  const int64_t tick = tick_step(std::max<int64_t>(nanoseconds, 1), 8);
  for (int64_t at = 0; at <= nanoseconds; at += tick) {
    const double x = kLeft + static_cast<double>(at) * 1e-9 * scale;
    chart.line(x, y, x, y + 5, "stroke='#9aa4b5'");
    chart.text(x, y + 19, "middle", at == 0 ? "0" : duration(static_cast<double>(at) * 1e-9));
  }
  struct Entry {
    double x;
    const char* color;
    const char* name;
  };
  for (const Entry& entry : {Entry{0, kAttention, "attention"}, Entry{110, kExchange, "keys and values on their way"},
                             Entry{320, kGradients, "gradients on their way home"}, Entry{530, kWaiting, "waiting"}}) {
    chart.box(kLeft + entry.x, y + 38, 12, 12, entry.color, "");
    chart.text(kLeft + entry.x + 18, y + 48, "start", entry.name);
  }
  return chart.finish();
}

std::string plan_to_svg(const DistAttnPlan& plan, const CostModel& model, const AttentionSize& shape,
                        const std::string& title) {
  const std::array<std::string, 3> pictures = {dispatch_to_svg(plan.mask(), plan.dispatch(), {.title = title}),
                                               balance_to_svg(plan.dispatch()), timeline_to_svg(plan, model, shape)};
  double height = 0;
  for (const std::string& picture : pictures) height += height_of(picture);
  std::ostringstream svg;
  svg.imbue(std::locale::classic());
  const Number width{kLeft + kWidth + kRight};
  svg << "<svg xmlns='http://www.w3.org/2000/svg' width='" << width << "' height='" << Number{height}
      << "' viewBox='0 0 " << width << " " << Number{height} << "'>\n<rect width='100%' height='100%' fill='#fff'/>\n";
  double y = 0;
  for (const std::string& picture : pictures) {
    svg << "<g transform='translate(0 " << Number{y} << ")'>\n" << picture << "</g>\n";
    y += height_of(picture);
  }
  svg << "</svg>\n";
  return svg.str();
}

}  // namespace attnmux
