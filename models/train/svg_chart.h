// A line chart as inline SVG: what report.html draws its curves with.
//
//   std::string svg = line_chart({.title = "loss", .series = {{.name = "train", .points = {{1, 3.2}, {2, 2.9}}}}});
//
// Colours come from the page's CSS (classes "s0", "s1", ... on lines and points). Pure, any thread.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace attnmux {

struct ChartSeries {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y; x ascending; points that are not finite are left out
  bool markers = false;                           // points with their values instead of a line
};

struct Chart {
  std::string title;
  std::string unit;  // behind the title
  std::vector<ChartSeries> series;
  bool from_zero = false;  // the y axis starts at 0
  int width = 760;
  int height = 280;
};

std::string line_chart(const Chart& chart);

// "1 234", "0.00012", "1.2e-05": at most `digits` significant digits.
std::string number_text(double value, int digits);

// Text as HTML: & < > " escaped.
std::string escape_html(const std::string& text);

}  // namespace attnmux
