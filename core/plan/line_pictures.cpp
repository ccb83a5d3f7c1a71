// Pictures of numbers over a size: efficiency over ranks, time to plan over slices and chunks.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "attnmux/plan_report.h"
#include "picture.h"

namespace attnmux {
namespace {

constexpr double kHeight = 260;
constexpr std::array<const char*, 8> kColors = {"#4361c2", "#d1495b", "#1f9e89", "#e8a13a",
                                                "#7b52ab", "#3fa7d6", "#8a6d3b", "#5c6b7a"};

// Names in the order in which they first appear.
template <class Row, class Name>
std::vector<std::string> names_of(const std::vector<Row>& rows, Name&& name) {
  std::vector<std::string> names;
  for (const Row& row : rows) {
    if (std::find(names.begin(), names.end(), name(row)) == names.end()) names.push_back(name(row));
  }
  return names;
}

struct Point {
  double x = 0;
  double y = 0;  // pixels
  std::string hint;
};

// Lines with their names behind the last point, clear of each other.
class Lines {
 public:
  explicit Lines(Picture* picture) : picture_(picture) {}

  void add(const std::string& name, const std::vector<Point>& points) {
    const char* color = kColors[labels_.size() % kColors.size()];
    std::ostream& out = picture_->out();
    out << "<path d='";
    for (size_t i = 0; i < points.size(); ++i) {
      out << (i == 0 ? "M" : "L") << Number{points[i].x} << " " << Number{points[i].y};
    }
    out << "' fill='none' stroke-width='2' stroke='" << color << "'/>\n";
    for (const Point& point : points) {
      out << "<circle cx='" << Number{point.x} << "' cy='" << Number{point.y} << "' r='3.5' fill='" << color
          << "'><title>" << Escaped{point.hint} << "</title></circle>\n";
    }
    labels_.push_back({points.back().y, name, color});
  }

  void write_names() {
    std::stable_sort(labels_.begin(), labels_.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
    constexpr double kApart = 15;
    double room = kTop + kHeight - kApart * static_cast<double>(labels_.size() - 1);  // the rest still fits below
    double above = -std::numeric_limits<double>::infinity();
    for (const Label& label : labels_) {
      const double y = std::max(std::min(label.y, room), above + kApart);
      picture_->out() << "<g font-weight='600' fill='" << label.color << "'>";
      picture_->text(kLeft + kWidth + 10, y + 4, "start", label.name);
      picture_->out() << "</g>\n";
      above = y;
      room += kApart;
    }
  }

 private:
  struct Label {
    double y;
    std::string name;
    const char* color;
  };
  Picture* picture_;
  std::vector<Label> labels_;
};

}  // namespace

std::string simulation_to_svg(const std::vector<SchemeStep>& steps) {
  Picture picture(kTop + kHeight + 60, "Predicted efficiency",
                  "time of one rank / (ranks x time of all), forward and backward");
  if (steps.empty()) return picture.finish();
  const double first = std::log2(static_cast<double>(steps.front().ranks));
  const double last = std::max(std::log2(static_cast<double>(steps.back().ranks)), first + 1);
  const auto x_of = [&](int64_t ranks) {
    return kLeft + (std::log2(static_cast<double>(ranks)) - first) / (last - first) * kWidth;
  };
  for (int percent = 0; percent <= 100; percent += 20) {
    const double y = kTop + kHeight * (1 - percent / 100.0);
    picture.line(kLeft, y, kLeft + kWidth, y, "stroke='#e3e8f0'");
    picture.text(kLeft - 8, y + 4, "end", std::to_string(percent) + " %");
  }
  const std::vector<std::string> schemes = names_of(steps, [](const SchemeStep& step) { return step.scheme; });
  for (const SchemeStep& step : steps) {
    if (step.scheme != schemes.front()) continue;
    picture.text(x_of(step.ranks), kTop + kHeight + 20, "middle", std::to_string(step.ranks));
  }
  picture.text(kLeft + kWidth / 2, kTop + kHeight + 42, "middle", "ranks");
  Lines lines(&picture);
  for (const std::string& scheme : schemes) {
    std::vector<Point> points;
    for (const SchemeStep& step : steps) {
      if (step.scheme != scheme) continue;
      points.push_back(
          {x_of(step.ranks), kTop + kHeight * (1 - std::min(step.efficiency, 1.0)),
           std::to_string(step.ranks) + " ranks: " + fixed(step.efficiency * 100, 1) + " %, " + duration(step.step_s)});
    }
    lines.add(scheme, points);
  }
  lines.write_names();
  return picture.finish();
}

// Both axes by powers: a time that grows as n is a line that climbs as the dashed one, a little less than n log n.
std::string growth_to_svg(const std::vector<PlanGrowth>& rows) {
  Picture picture(kTop + kHeight + 60, "Time to plan",
                  "who owns what, what every rank needs, one rank's masks and exchanges");
  if (rows.empty()) return picture.finish();
  double least_size = std::numeric_limits<double>::infinity(), most_size = 0;
  double least_ms = std::numeric_limits<double>::infinity(), most_ms = 0;
  for (const PlanGrowth& row : rows) {
    least_size = std::min(least_size, static_cast<double>(row.size));
    most_size = std::max(most_size, static_cast<double>(row.size));
    least_ms = std::min(least_ms, row.plan_ms);
    most_ms = std::max(most_ms, row.plan_ms);
  }
  const int first_decade = static_cast<int>(std::floor(std::log10(least_ms)));
  const int last_decade = std::max(static_cast<int>(std::ceil(std::log10(most_ms))), first_decade + 1);
  const double first = std::floor(std::log2(least_size));
  const double last = std::max(std::ceil(std::log2(most_size)), first + 1);
  const auto x_of = [&](double size) { return kLeft + (std::log2(size) - first) / (last - first) * kWidth; };
  const auto y_of = [&](double ms) {
    return kTop + kHeight * (1 - (std::log10(ms) - first_decade) / (last_decade - first_decade));
  };
  for (int decade = first_decade; decade <= last_decade; ++decade) {
    const double y = y_of(std::pow(10, decade));
    picture.line(kLeft, y, kLeft + kWidth, y, "stroke='#e3e8f0'");
    const int of_unit = decade < 0 ? decade + 3 : decade < 3 ? decade : decade - 3;
    picture.text(kLeft - 8, y + 4, "end",
                 fixed(std::pow(10, of_unit), of_unit < 0 ? -of_unit : 0) + (decade < 0   ? " µs"
                                                                             : decade < 3 ? " ms"
                                                                                          : " s"));
  }
  for (double power = first; power <= last; power += 2) {
    picture.text(x_of(std::exp2(power)), kTop + kHeight + 20, "middle", with_commas(std::llround(std::exp2(power))));
  }
  picture.text(kLeft + kWidth / 2, kTop + kHeight + 42, "middle", "slices + chunks");
  // n log n through the middle of the picture's left side.
  const double n = std::exp2(first), n_end = std::exp2(last);
  const double start = std::pow(10, first_decade + 0.35 * (last_decade - first_decade));
  const double end = start * (n_end * last) / (n * std::max(first, 1.0));
  const double shown = std::min(1.0, (last_decade - std::log10(start)) / (std::log10(end) - std::log10(start)));
  picture.line(x_of(n), y_of(start), x_of(std::exp2(first + shown * (last - first))),
               y_of(std::pow(10, std::log10(start) + shown * (std::log10(end) - std::log10(start)))),
               "stroke='#1c2333' stroke-dasharray='5 4'");
  picture.text(x_of(n) + 6, y_of(start) + 18, "start", "n log n");
  Lines lines(&picture);
  for (const std::string& mask : names_of(rows, [](const PlanGrowth& row) { return row.mask; })) {
    std::vector<Point> points;
    for (const PlanGrowth& row : rows) {
      if (row.mask != mask) continue;
      points.push_back({x_of(static_cast<double>(row.size)), y_of(row.plan_ms),
                        mask + ", " + with_commas(row.size) + ": " + duration(row.plan_ms / 1e3)});
    }
    lines.add(mask, points);
  }
  lines.write_names();
  return picture.finish();
}

}  // namespace attnmux
