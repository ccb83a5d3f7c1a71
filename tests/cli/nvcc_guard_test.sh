#!/bin/bash
# tools/nvcc_guard around commands that print what ptxas prints: serialised wgmma and large spills fail, the rest passes.
# usage: nvcc_guard_test.sh GUARD
set -euo pipefail
guard=$1

# expect STATUS NAME STDERR [COMMAND'S STATUS]
expect() {
  local status=0
  "$guard" bash -c 'printf "%s\n" "$1" >&2; exit "$2"' _ "$3" "${4:-0}" 2>/dev/null || status=$?
  [ "$status" -eq "$1" ] || { echo "$2: exit status $status, expected $1"; exit 1; }
}

spill() { echo "    48 bytes stack frame, $1 bytes spill stores, 8 bytes spill loads"; }
expect 0 "a quiet compilation" ""
expect 0 "registers and a small spill" "$(spill 128)
ptxas info    : Used 168 registers, used 16 barriers, 48 bytes cumulative stack size"
expect 1 "a large spill" "$(spill 129)"
expect 1 "a large spill before a small one" "$(spill 1000)
$(spill 0)"
ATTNMUX_MAX_SPILL=200 expect 0 "a limit of one's own" "$(spill 129)"
for code in C7508 C7510 C7514 C7519; do
  expect 1 "$code" "ptxas info    : ($code) Potential Performance Loss: wgmma.mma_async instructions are serialized"
done
expect 0 "another remark" "ptxas info    : (C7509) something else"
expect 2 "a compilation that fails" "error: expected a ';'" 2
echo "nvcc_guard lets through what it should"
