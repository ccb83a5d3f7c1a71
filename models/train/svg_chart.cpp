#include "models/train/svg_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <sstream>

namespace attnmux {
namespace {

struct Span {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// A round step (1, 2 or 5 times a power of ten) that cuts the span into about `count` pieces.
double round_step(double span, int count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10.0 * power;
}

// Axis from data to pixels, widened to round ticks.
class Axis {
 public:
  Axis(Span data, double pixel_low, double pixel_high, int ticks, bool widen)
      : pixel_low_(pixel_low), pixel_high_(pixel_high) {
    if (!(data.low < data.high)) {
      const double middle = std::isfinite(data.low) ? data.low : 0.0;
      const double margin = std::max(std::abs(middle) * 0.05, 1e-9);
      data = {middle - margin, middle + margin};
    }
    step_ = round_step(data.high - data.low, ticks);
    low_ = widen ? std::floor(data.low / step_) * step_ : data.low;
    high_ = widen ? std::ceil(data.high / step_) * step_ : data.high;
  }
  double pixel(double value) const { return pixel_low_ + (value - low_) / (high_ - low_) * (pixel_high_ - pixel_low_); }
  std::vector<double> ticks() const {
    std::vector<double> values;
    const auto first = static_cast<int64_t>(std::ceil(low_ / step_ - 1e-9));
    const auto last = static_cast<int64_t>(std::floor(high_ / step_ + 1e-9));
    for (int64_t i = first; i <= last; ++i) values.push_back(static_cast<double>(i) * step_);
    return values;
  }

 private:
  double low_ = 0, high_ = 1, step_ = 1, pixel_low_, pixel_high_;
};

std::string px(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

struct Frame {
  double left = 62, right, top = 40, bottom;
};

void draw_axes(std::ostringstream& svg, const Frame& frame, const Axis& x, const Axis& y) {
  for (const double tick : y.ticks()) {
    const std::string at = px(y.pixel(tick));
    svg << "<line class=\"grid\" x1=\"" << px(frame.left) << "\" x2=\"" << px(frame.right) << "\" y1=\"" << at
        << "\" y2=\"" << at << "\"/><text class=\"tick\" text-anchor=\"end\" x=\"" << px(frame.left - 8) << "\" y=\""
        << at << "\" dy=\"0.35em\">" << number_text(tick, 4) << "</text>";
  }
  for (const double tick : x.ticks()) {
    if (std::abs(tick - std::round(tick)) > 1e-9) continue;  // steps are whole
    svg << "<text class=\"tick\" text-anchor=\"middle\" x=\"" << px(x.pixel(tick)) << "\" y=\"" << px(frame.bottom + 18)
        << "\">" << number_text(tick, 6) << "</text>";
  }
}

void draw_line(std::ostringstream& svg, const ChartSeries& series, size_t index, const Axis& x, const Axis& y) {
  svg << "<polyline class=\"line s" << index << "\" points=\"";
  for (const auto& [px_x, px_y] : series.points) {
    if (std::isfinite(px_y)) svg << px(x.pixel(px_x)) << ',' << px(y.pixel(px_y)) << ' ';
  }
  svg << "\"/>";
}

void draw_points(std::ostringstream& svg, const ChartSeries& series, size_t index, const Axis& x, const Axis& y,
                 const Frame& frame) {
  for (const auto& [vx, vy] : series.points) {
    if (!std::isfinite(vy)) continue;
    const double cx = x.pixel(vx);
    const bool near_right = cx > frame.right - 60;
    svg << "<circle class=\"dot s" << index << "\" r=\"" << (series.markers ? 5 : 2.2) << "\" cx=\"" << px(cx)
        << "\" cy=\"" << px(y.pixel(vy)) << "\"><title>" << escape_html(series.name) << ", step " << number_text(vx, 9)
        << ": " << number_text(vy, 6) << "</title></circle>";
    if (!series.markers) continue;
    svg << "<text class=\"value s" << index << "\" text-anchor=\"" << (near_right ? "end" : "start") << "\" x=\""
        << px(cx + (near_right ? -10 : 10)) << "\" y=\"" << px(y.pixel(vy) - 8) << "\">" << number_text(vy, 4)
        << "</text>";
  }
}

void draw_legend(std::ostringstream& svg, const Chart& chart, const Frame& frame) {
  svg << "<text class=\"title\" x=\"" << px(frame.left) << "\" y=\"22\">" << escape_html(chart.title);
  if (!chart.unit.empty()) svg << " <tspan class=\"unit\">" << escape_html(chart.unit) << "</tspan>";
  svg << "</text>";
  if (chart.series.size() < 2) return;
  double at = frame.right;
  for (size_t i = chart.series.size(); i-- > 0;) {
    at -= 7.2 * static_cast<double>(chart.series[i].name.size()) + 26;
    svg << "<circle class=\"dot s" << i << "\" r=\"4\" cx=\"" << px(at) << "\" cy=\"18\"/><text class=\"tick\" x=\""
        << px(at + 9) << "\" y=\"22\">" << escape_html(chart.series[i].name) << "</text>";
  }
}

}  // namespace

std::string line_chart(const Chart& chart) {
  const Frame frame{.right = chart.width - 16.0, .bottom = chart.height - 34.0};
  Span xs, ys;
  if (chart.from_zero) ys.include(0);
  for (const ChartSeries& series : chart.series) {
    for (const auto& [x, y] : series.points) {
      if (!std::isfinite(y)) continue;
      xs.include(x);
      ys.include(y);
    }
  }
  const Axis x(xs, frame.left + 6, frame.right - 6, 8, /*widen=*/false);
  const Axis y(ys, frame.bottom, frame.top, 5, /*widen=*/true);
  std::ostringstream svg;
  svg << "<svg class=\"chart\" viewBox=\"0 0 " << chart.width << ' ' << chart.height << "\" role=\"img\" aria-label=\""
      << escape_html(chart.title) << "\">";
  draw_axes(svg, frame, x, y);
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const ChartSeries& series = chart.series[i];
    if (!series.markers) draw_line(svg, series, i, x, y);
    if (series.markers || series.points.size() <= 60) draw_points(svg, series, i, x, y, frame);
  }
  draw_legend(svg, chart, frame);
  svg << "<text class=\"tick\" text-anchor=\"end\" x=\"" << px(frame.right) << "\" y=\"" << px(frame.bottom + 32)
      << "\">step</text></svg>";
  return svg.str();
}

std::string number_text(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*g", digits, value == 0 ? 0.0 : value);
  std::string number = text;
  if (number.find_first_of("e.") != std::string::npos) return number;
  // Thousands apart: a thin space every three digits.
  const size_t sign = number.starts_with('-') ? 1 : 0;
  for (size_t at = number.size(); at > sign + 3;) number.insert(at -= 3, "\u2009");
  return number;
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&': escaped += "&amp;"; break;
      case '<': escaped += "&lt;"; break;
      case '>': escaped += "&gt;"; break;
      case '"': escaped += "&quot;"; break;
      default: escaped += c;
    }
  }
  return escaped;
}

}  // namespace attnmux
