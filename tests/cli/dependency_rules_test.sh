#!/bin/bash
# tools/check_dependencies.py on a made-up tree: every forbidden include is named, every allowed one is not.
# usage: dependency_rules_test.sh PYTHON CHECKER
set -euo pipefail
python=$1 checker=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
mkdir -p core/include/attnmux core/mask backends/tiled_cpu backends/ffa_sm90 backends/cp_nccl plugins/magi models/llama tools/attnmux
touch core/include/attnmux/mask.h core/mask/band.h backends/tiled_cpu/kernel.h models/llama/llama.h

cat >core/mask/good.cpp <<'CODE'
#include <nlohmann/json.hpp>
#include "attnmux/mask.h"
#include "attnmux/interface_hash.h"
#include "band.h"
CODE
printf '#include <cuda_runtime_api.h>\n#if defined(__CUDA_ARCH__)\n#endif\n' >backends/ffa_sm90/good.h
printf '#include <nccl.h>\n' >backends/cp_nccl/good.cpp
printf '#include "tiled_cpu/kernel.h"\n#include "attnmux/mask.h"\n' >plugins/magi/good.cpp
printf '#include "models/llama/llama.h"\n' >tools/attnmux/good.cpp
printf '#include <toml++/toml.h>\n' >models/llama/private.h
printf '#include "private.h"\n' >models/llama/good.cpp
"$python" "$checker" "$work" | grep -q 'keep the dependency rules' || { echo "good files are refused"; exit 1; }

printf '#include "bad.h"\n' >core/mask/band.h
cat >expected <<'LINES'
backends/tiled_cpu/bad.cpp:1 core/mask/band.h
backends/tiled_cpu/bad.cpp:2 cuda_runtime_api.h
backends/tiled_cpu/bad.cpp:3 USE_CUDA
core/include/attnmux/mask.h:1 boost/dll.hpp
core/mask/bad.cpp:1 tiled_cpu/kernel.h
core/mask/bad.cpp:2 models/llama/llama.h
core/mask/bad.cpp:3 spdlog/spdlog.h
core/mask/bad.cpp:4 torch/torch.h
core/mask/bad.cpp:5 nowhere.h
core/mask/bad.h:1 nlohmann/json.hpp
core/mask/bad.h:2 ATen/cuda/CUDAContext.h
models/llama/bad.cpp:1 tiled_cpu/kernel.h
models/llama/bad.cpp:2 core/mask/band.h
plugins/magi/bad.cpp:1 models/llama/llama.h
tools/attnmux/bad.cpp:1 backends/tiled_cpu/kernel.h
LINES
while read -r where what; do
  case "$what" in
    USE_*) line="#if USE_CUDA" ;;
    spdlog/* | torch/* | nlohmann/* | boost/* | ATen/* | cuda*) line="#include <$what>" ;;
    *) line="#include \"$what\"" ;;
  esac
  echo "$line" >>"${where%:*}"
done <expected

if "$python" "$checker" "$work" >found; then echo "bad files are accepted"; exit 1; fi
while read -r where what; do
  grep -q "^$where: .*$what" found || { echo "not reported: $where $what"; cat found; exit 1; }
done <expected
[ "$(wc -l <found)" = "$(wc -l <expected)" ] || { echo "reported more than the bad includes:"; cat found; exit 1; }
