#!/bin/bash
# The installed tree may be moved, and a project of its own finds it, builds a plugin and loads it.
# usage: install_test.sh BUILD_DIR PROJECT_DIR [compiler launcher]
set -euo pipefail
build=$1 project=$2 launcher=${3:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "$(cat "$work/log")"
mv "$work/first" "$work/moved"
for file in bin/attnmux lib/libattnmux_core.so lib/attnmux/plugins/{reference,sdpa,flash,magi}.so \
    include/attnmux/{plugin,interface_hash}.h lib/cmake/attnmux/{attnmuxConfig,AttnmuxPlugin,AttnmuxTorch}.cmake; do
  [ -e "$work/moved/$file" ] || fail "$file was not installed"
done
# A library or package file that names the build tree or the first prefix works here and nowhere else.
if readelf -d "$work"/moved/bin/attnmux "$work"/moved/lib/*.so "$work"/moved/lib/attnmux/plugins/*.so |
    grep -E "R(UN)?PATH" | grep -F -e "$build" -e "$work"; then
  fail "a run path names a folder that is gone after the move"
fi
if grep -rF -e "$build" -e "$work/first" "$work/moved/lib/cmake"; then fail "a package file names a folder of the build"; fi

cmake -G Ninja -S "$project" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/moved" \
  -DATTNMUX_EXAMPLES="$work/moved/share/attnmux/examples" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
cmake --build "$work/build" >"$work/log" 2>&1 || fail "$(cat "$work/log")"

# The moved program loads the plugin of the other project beside its own plugins.
listing=$(ATTNMUX_PLUGIN_PATH="$work/build/minimal" "$work/moved/bin/attnmux" plugins --json)
for id in reference sdpa flash magi minimal; do
  grep -qE "\"id\": *\"$id\"" <<<"$listing" || fail "backend $id is not listed: $listing"
done
grep -qF "$work/moved/lib/attnmux/plugins/magi.so" <<<"$listing" || fail "its own plugins were not found: $listing"

# And the other project's own program does the same through the library.
ATTNMUX_PLUGIN_FILES="$work/build/minimal/minimal.so" "$work/build/host" || fail "the host program failed"
