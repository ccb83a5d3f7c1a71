// The ranks of a run as a grid: dp replicas of the model, each on cp ranks that share its sequences.
//
//   DeviceMesh mesh = make_device_mesh(world, {.dp = 2, .cp = 2});      // four ranks
//   mesh.cp->size();                                                    // 2: attention exchanges
//   mesh.world->all_reduce(gradients, ReduceOp::kSum);                  // over both
//
// Ranks that share a sequence are neighbours: world rank = dp_rank * cp + cp_rank. One thread.
#pragma once

#include <cstdint>
#include <memory>

#include "attnmux/cp_group.h"

namespace attnmux {

struct MeshShape {
  int64_t dp = 1;
  int64_t cp = 1;
};

struct DeviceMesh {
  MeshShape shape;
  std::shared_ptr<CpGroup> world;
  std::shared_ptr<CpGroup> cp;  // this rank's row: those that share its sequences
  int64_t dp_rank = 0;          // which replica
};

// Collective. Throws Error(kConfig) where dp * cp is not the number of ranks, naming all three. The mesh does not own
// `world`, which outlives it.
DeviceMesh make_device_mesh(CpGroup& world, const MeshShape& shape);

// One rank alone.
DeviceMesh single_rank_mesh();

}  // namespace attnmux
