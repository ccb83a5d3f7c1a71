#include "models/train/device_mesh.h"

#include <numeric>
#include <string>
#include <vector>

#include "attnmux/error.h"

namespace attnmux {

DeviceMesh make_device_mesh(CpGroup& world, const MeshShape& shape) {
  if (shape.dp < 1 || shape.cp < 1 || shape.dp * shape.cp != world.size()) {
    throw Error(ErrorCode::kConfig,
                "parallel.dp = " + std::to_string(shape.dp) + " and parallel.cp = " + std::to_string(shape.cp) +
                    " make " + std::to_string(shape.dp * shape.cp) + " ranks, and " + std::to_string(world.size()) +
                    " were started; start dp * cp ranks, or change parallel.dp or parallel.cp");
  }
  const int64_t dp_rank = world.rank() / shape.cp;
  std::vector<int32_t> row(shape.cp);
  std::iota(row.begin(), row.end(), static_cast<int32_t>(dp_rank * shape.cp));
  return {.shape = shape,
          .world = std::shared_ptr<CpGroup>(&world, [](CpGroup*) {}),
          .cp = world.subgroup(row),
          .dp_rank = dp_rank};
}

DeviceMesh single_rank_mesh() { return {.shape = {}, .world = single_rank_group(), .cp = single_rank_group()}; }

}  // namespace attnmux
