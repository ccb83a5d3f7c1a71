#include <algorithm>
#include <locale>
#include <sstream>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "mask_drawing.h"
#include "svg_text.h"

namespace attnmux {
namespace {

// One look for each mask type, told apart by hue and by lightness.
const std::vector<MaskLook> kTypes = {
    {"full", "#4361c2"}, {"causal", "#1f9e89"}, {"inverse causal", "#e8a13a"}, {"diagonal band", "#d1495b"}};

// Pixels.
constexpr double kLeft = 72;
constexpr double kRight = 28;
constexpr double kBottom = 58;
constexpr double kThinnest = 48;       // of the picture's shorter side
constexpr double kVisibleToken = 4;    // from which a token's own corners are drawn
constexpr double kGridToken = 7;       // from which tokens are told apart by a grid
constexpr double kThinnestLine = 0.6;  // what is thinner would vanish
constexpr double kLegendStep = 128;
constexpr size_t kLooksNamed = 8;  // more of them are shown as one strip

class Drawing {
 public:
  Drawing(const AttnMaskSpec& mask, const std::vector<MaskLook>& looks, const std::vector<MaskPart>& parts,
          const SvgOptions& options)
      : mask_(mask),
        looks_(looks),
        parts_(parts),
        title_(options.title),
        total_q_(std::max<int64_t>(mask.total_q(), 1)),
        total_k_(std::max<int64_t>(mask.total_k(), 1)),
        drawn_(looks.size(), false) {
    const double scale = static_cast<double>(options.size_px) / static_cast<double>(std::max(total_q_, total_k_));
    width_ = std::max(static_cast<double>(total_k_) * scale, kThinnest);
    height_ = std::max(static_cast<double>(total_q_) * scale, kThinnest);
    token_x_ = width_ / static_cast<double>(total_k_);
    token_y_ = height_ / static_cast<double>(total_q_);
    top_ = title_.empty() ? 74 : 100;
    svg_.imbue(std::locale::classic());
  }

  std::string draw() {
    const Number full_width{std::max(kLeft + width_ + kRight, kLeft + 3 * kLegendStep)};
    const Number full_height{top_ + height_ + kBottom};
    svg_ << "<svg xmlns='http://www.w3.org/2000/svg' width='" << full_width << "' height='" << full_height
         << "' viewBox='0 0 " << full_width << " " << full_height
         << "' font-family='system-ui, \"DejaVu Sans\", sans-serif' font-size='12' fill='#5b6472'>\n"
         << "<rect width='100%' height='100%' rx='10' fill='#fff'/>\n";
    draw_heading();
    svg_ << "<g transform='translate(" << Number{kLeft} << " " << Number{top_} << ")'>\n";
    draw_axes();
    draw_pairs();
    if (std::min(token_x_, token_y_) >= kGridToken) draw_grid();
    svg_ << "<rect width='" << Number{width_} << "' height='" << Number{height_}
         << "' fill='none' stroke='#9aa4b5'/>\n</g>\n";
    draw_legend();
    svg_ << "</svg>\n";
    return svg_.str();
  }

 private:
  void draw_heading() {
    double y = 28;
    if (!title_.empty()) {
      svg_ << "<text x='" << Number{kLeft} << "' y='" << Number{y + 2}
           << "' font-size='18' font-weight='600' fill='#1c2333'>" << Escaped{title_} << "</text>\n";
      y += 26;
    }
    const double all = static_cast<double>(mask_.total_q()) * static_cast<double>(mask_.total_k());
    const double percent = all > 0 ? 100 * static_cast<double>(mask_.area()) / all : 0;
    svg_ << "<text x='" << Number{kLeft} << "' y='" << Number{y} << "'>" << with_commas(mask_.total_q())
         << " queries × " << with_commas(mask_.total_k()) << " keys · " << with_commas(mask_.area())
         << " pairs attended (" << Number{percent, percent < 1 ? 4 : 1} << " %)</text>\n";
  }

  void draw_axes() {
    svg_ << "<rect width='" << Number{width_} << "' height='" << Number{height_} << "' fill='#eef1f6'/>\n";
    std::ostringstream lines;
    lines.imbue(std::locale::classic());
    const int64_t step_x = tick_step(total_k_, std::max<int64_t>(1, static_cast<int64_t>(width_ / 64)));
    for (int64_t k = 0; k <= mask_.total_k(); k += step_x) {
      const Number x{static_cast<double>(k) * token_x_};
      lines << "M" << x << " -5V" << Number{height_};
      svg_ << "<text x='" << x << "' y='-10' text-anchor='middle'>" << tick_label(k, step_x) << "</text>\n";
    }
    const int64_t step_y = tick_step(total_q_, std::max<int64_t>(1, static_cast<int64_t>(height_ / 40)));
    for (int64_t q = 0; q <= mask_.total_q(); q += step_y) {
      const double y = static_cast<double>(q) * token_y_;
      lines << "M-5 " << Number{y} << "H" << Number{width_};
      svg_ << "<text x='-10' y='" << Number{y + 4} << "' text-anchor='end'>" << tick_label(q, step_y) << "</text>\n";
    }
    svg_ << "<path d='" << lines.str() << "' stroke='#d5dbe6'/>\n"
         << "<text x='" << Number{width_} << "' y='-28' text-anchor='end' font-style='italic'>keys →</text>\n"
         << "<text transform='translate(-54 " << Number{height_}
         << ") rotate(-90)' font-style='italic'>← queries</text>\n";
  }

  // One path for each look; coordinates count half tokens from the top left corner.
  void draw_pairs() {
    const bool stairs = std::min(token_x_, token_y_) >= kVisibleToken;
    std::vector<std::ostringstream> paths(looks_.size());
    for (std::ostringstream& path : paths) path.imbue(std::locale::classic());
    for (const MaskPart& part : parts_) {
      stairs ? add_stairs(part.piece, paths[part.look]) : add_polygon(part.piece, paths[part.look]);
      drawn_[part.look] = true;
    }
    svg_ << "<svg width='" << Number{width_} << "' height='" << Number{height_} << "' viewBox='0 0 " << 2 * total_k_
         << " " << 2 * total_q_ << "' preserveAspectRatio='none'>\n";
    const Number outline{stairs ? 0 : 2 * kThinnestLine / std::max(token_x_, token_y_), 4};
    for (size_t look = 0; look < paths.size(); ++look) {
      if (!drawn_[look]) continue;
      svg_ << "<path fill='" << looks_[look].color << "' stroke='" << looks_[look].color << "' stroke-width='"
           << outline << "' d='" << paths[look].str() << "'/>\n";
    }
    svg_ << "</svg>\n";
  }

  static void add_polygon(const Trapezoid& piece, std::ostream& path) {
    // A moving edge steps at every row; the line through the middle of its steps is half a token off at both ends.
    const auto edge = [](Edge edge, int64_t row) { return 2 * edge.at(row) - (edge.moving ? 1 : 0); };
    const int64_t top_left = edge(piece.left, piece.q0);
    const int64_t top_right = edge(piece.right, piece.q0);
    const int64_t bottom_right = edge(piece.right, piece.q1);
    const int64_t bottom_left = edge(piece.left, piece.q1);
    path << "M" << top_left << " " << 2 * piece.q0 << "h" << top_right - top_left;
    if (piece.right.moving) {
      path << "l" << bottom_right - top_right << " " << 2 * piece.height();
    } else {
      path << "v" << 2 * piece.height();
    }
    path << "h" << bottom_left - bottom_right << "z";
  }

  static void add_stairs(const Trapezoid& piece, std::ostream& path) {
    path << "M" << 2 * piece.left.at(piece.q0) << " " << 2 * piece.q0 << "H" << 2 * piece.right.at(piece.q0);
    for (int64_t row = piece.q0 + 1; piece.right.moving && row < piece.q1; ++row) path << "v2h2";
    path << "V" << 2 * piece.q1 << "H" << 2 * piece.left.at(piece.q1 - 1);
    for (int64_t row = piece.q0 + 1; piece.left.moving && row < piece.q1; ++row) path << "v-2h-2";
    path << "z";
  }

  void draw_grid() {
    svg_ << "<path stroke='#fff' stroke-opacity='.6' d='";
    for (int64_t k = 1; k < total_k_; ++k) {
      svg_ << "M" << Number{static_cast<double>(k) * token_x_} << " 0V" << Number{height_};
    }
    for (int64_t q = 1; q < total_q_; ++q) {
      svg_ << "M0 " << Number{static_cast<double>(q) * token_y_} << "H" << Number{width_};
    }
    svg_ << "'/>\n";
  }

  void draw_legend() {
    const double y = top_ + height_ + 34;
    if (std::find(drawn_.begin(), drawn_.end(), true) == drawn_.end()) {
      svg_ << "<text x='" << Number{kLeft} << "' y='" << Number{y} << "'>no pair is attended</text>\n";
      return;
    }
    if (looks_.size() > kLooksNamed) return draw_strip(y);
    const double step = std::min(kLegendStep, std::max(width_, 3 * kLegendStep) / static_cast<double>(looks_.size()));
    double x = kLeft;
    for (size_t look = 0; look < looks_.size(); ++look) {
      if (!drawn_[look]) continue;
      svg_ << "<rect x='" << Number{x} << "' y='" << Number{y - 10} << "' width='12' height='12' rx='3' fill='"
           << looks_[look].color << "'/><text x='" << Number{x + 18} << "' y='" << Number{y} << "'>"
           << looks_[look].name << "</text>\n";
      x += step;
    }
  }

  void draw_strip(double y) {
    const double step = width_ / static_cast<double>(looks_.size());
    for (size_t look = 0; look < looks_.size(); ++look) {
      svg_ << "<rect x='" << Number{kLeft + static_cast<double>(look) * step} << "' y='" << Number{y - 18}
           << "' width='" << Number{step + 0.3} << "' height='10' fill='" << looks_[look].color << "'/>\n";
    }
    svg_ << "<text x='" << Number{kLeft} << "' y='" << Number{y + 8} << "'>" << looks_.front().name
         << "</text><text x='" << Number{kLeft + width_} << "' y='" << Number{y + 8} << "' text-anchor='end'>"
         << looks_.back().name << "</text>\n";
  }

  const AttnMaskSpec& mask_;
  const std::vector<MaskLook>& looks_;
  const std::vector<MaskPart>& parts_;
  const std::string& title_;
  int64_t total_q_;  // at least 1
  int64_t total_k_;
  double width_ = 0;
  double height_ = 0;
  double token_x_ = 0;
  double token_y_ = 0;
  double top_ = 0;
  std::vector<bool> drawn_;  // by look
  std::ostringstream svg_;
};

}  // namespace

std::string draw_mask(const AttnMaskSpec& mask, const std::vector<MaskLook>& looks, const std::vector<MaskPart>& parts,
                      const SvgOptions& options) {
  if (options.size_px < 64 || options.size_px > 16384) {
    throw Error(ErrorCode::kInvalidArgument,
                "size_px = " + std::to_string(options.size_px) + " is outside [64, 16384] pixels");
  }
  return Drawing(mask, looks, parts, options).draw();
}

std::string mask_to_svg(const AttnMaskSpec& mask, const SvgOptions& options) {
  std::vector<MaskPart> parts;
  for (const AttnSlice& slice : mask.disjoint_slices()) {
    parts.push_back({*to_trapezoid(slice), static_cast<size_t>(slice.type)});
  }
  return draw_mask(mask, kTypes, parts, options);
}

}  // namespace attnmux
