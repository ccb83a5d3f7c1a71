#!/bin/bash
# The installed tree may be moved, and a project of its own finds it, builds a plugin and loads it.
# usage: install_test.sh BUILD_DIR TORCH_LIB_DIR PROJECT_DIR [compiler launcher]
set -euo pipefail
build=$1 project=$2 launcher=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "$(cat "$work/log")"
mv "$work/first" "$work/moved"
for file in lib/libattnmux_core.so lib/attnmux/plugins/{reference,sdpa,flash,magi}.so include/attnmux/plugin.h \
    include/attnmux/interface_hash.h lib/cmake/attnmux/{attnmuxConfig,AttnmuxPlugin,AttnmuxTorch}.cmake; do
  [ -e "$work/moved/$file" ] || fail "$file was not installed"
done
# A library or package file that names the build tree or the first prefix works here and nowhere else.
if readelf -d "$work"/moved/lib/*.so "$work"/moved/lib/attnmux/plugins/*.so |
    grep -E "R(UN)?PATH" | grep -F -e "$build" -e "$work"; then
  fail "a run path names a folder that is gone after the move"
fi
if grep -rF -e "$build" -e "$work/first" "$work/moved/lib/cmake"; then fail "a package file names a folder of the build"; fi

cmake -G Ninja -S "$project" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/moved" -DATTNMUX_EXAMPLES="$work/moved/share/attnmux/examples" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
cmake --build "$work/build" >"$work/log" 2>&1 || fail "$(cat "$work/log")"


# And the other project's own program does the same through the library.
ATTNMUX_PLUGIN_FILES="$work/build/minimal/minimal.so" "$work/build/host" || fail "the host program failed"
