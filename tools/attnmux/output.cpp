#include <algorithm>
#include <cctype>
#include <cstdio>
#include <iostream>

#include "tools/attnmux/command.h"

namespace attnmux::tool {
namespace {

bool is_number(const std::string& text) {
  return text == "-" || (!text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
           return std::isdigit(c) || c == '.' || c == ',';
         }));
}

}  // namespace

void print_line(const std::string& line) { std::cout << line << "\n"; }

void print_table(const std::vector<std::vector<std::string>>& rows) {
  const size_t columns = rows.front().size();
  std::vector<size_t> widths(columns, 0);
  std::vector<bool> numeric(columns, true);
  for (size_t r = 0; r < rows.size(); ++r) {
    // The last cell of a row that ends early is a remark: it may run on through the columns that the row lacks.
    const size_t cells = rows[r].size() < columns ? rows[r].size() - 1 : columns;
    for (size_t c = 0; c < cells; ++c) {
      widths[c] = std::max(widths[c], rows[r][c].size());
      if (r > 0 && !is_number(rows[r][c])) numeric[c] = false;
    }
  }
  for (const std::vector<std::string>& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const bool remark = row.size() < columns && c + 1 == row.size();
      const std::string padding(remark ? 0 : widths[c] - row[c].size(), ' ');
      if (c > 0) line += "  ";
      line += numeric[c] && !remark ? padding + row[c] : row[c] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    print_line(line);
  }
}

std::string with_separators(int64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t i = static_cast<int64_t>(digits.size()) - 3; i > (value < 0 ? 1 : 0); i -= 3) digits.insert(i, 1, ',');
  return digits;
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

}  // namespace attnmux::tool
