// Masks and prefix trees from arbitrary JSON: an Error or a mask that agrees with itself. The first byte chooses.
#include <cstdlib>
#include <string>

#include "attnmux/error.h"
#include "attnmux/mask_io.h"
#include "attnmux/tile_plan.h"

namespace {

using attnmux::AttnMaskSpec;
using attnmux::AttnSlice;

void require(bool holds) {
  if (!holds) std::abort();
}

bool attended_by_a_slice(const AttnMaskSpec& mask, int64_t q, int64_t k) {
  for (const AttnSlice& slice : mask.slices()) {
    const attnmux::Range keys = attnmux::keys_of_row(slice, q);
    if (k >= keys.begin && k < keys.end) return true;
  }
  return false;
}

void check(const AttnMaskSpec& mask) {
  int64_t area = 0;
  for (const AttnSlice& slice : mask.disjoint_slices()) area += attnmux::area(slice);
  require(area == mask.area());
  require(mask.area({0, mask.total_q()}) == area);
  require(attnmux::mask_from_json(attnmux::mask_to_json(mask)) == mask);
  require(AttnMaskSpec(mask.disjoint_slices(), mask.total_q(), mask.total_k()) == mask);
  mask.overlaps();
  attnmux::mask_to_svg(mask, {});

  constexpr int64_t kSmall = 48;
  if (mask.total_q() > kSmall || mask.total_k() > kSmall) return;
  for (int64_t q = 0; q < mask.total_q(); ++q) {
    for (int64_t k = 0; k < mask.total_k(); ++k) {
      const bool attended = attended_by_a_slice(mask, q, k);
      require(mask.allowed(q, k) == attended);
      area -= attended;
    }
  }
  require(area == 0);
  attnmux::transpose(attnmux::make_tile_plan(mask, {16, 32}));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view json(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    check(data[0] == 't' ? attnmux::prefix_tree_from_json(json).mask : attnmux::mask_from_json(json));
  } catch (const attnmux::Error& error) {
    require(error.code() == attnmux::ErrorCode::kConfig);
  }
  return 0;
}
