#!/bin/bash
# The installed tree may be moved; the commands of the plugin author's guide lead to a certified plugin with that tree
# alone, and a project of its own finds it and loads the plugin.
# usage: install_test.sh BUILD_DIR PROJECT_DIR GUIDE [compiler launcher]
set -euo pipefail
build=$1 project=$2 guide_file=$3 launcher=${4:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "install_test: $*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "$(cat "$work/log")"
mv "$work/first" "$work/moved"
for file in bin/attnmux bin/attnmux-check lib/libattnmux_core.so lib/attnmux/plugins/{reference,sdpa,flash,magi}.so \
    include/attnmux/{plugin,interface_hash}.h lib/cmake/attnmux/{attnmuxConfig,AttnmuxPlugin,AttnmuxTorch}.cmake; do
  [ -e "$work/moved/$file" ] || fail "$file was not installed"
done
# A library or package file that names the build tree or the first prefix works here and nowhere else.
if readelf -d "$work"/moved/bin/attnmux{,-check} "$work"/moved/lib/*.so "$work"/moved/lib/attnmux/plugins/*.so |
    grep -E "R(UN)?PATH" | grep -F -e "$build" -e "$work"; then
  fail "a run path names a folder that is gone after the move"
fi
if grep -rF -e "$build" -e "$work/first" "$work/moved/lib/cmake"; then fail "a package file names a folder of the build"; fi

# The author's guide, line by line, in an empty folder with the installed tree alone.
guide=$(sed -n '/^ *```sh$/,/^ *```$/{/```/d;s/^ *//;p}' "$guide_file")
[ "$(grep -c . <<<"$guide")" -ge 6 ] || fail "the guide has too few commands: $guide"
mkdir "$work/author"
(cd "$work/author" && PATH="$work/moved/bin:$PATH" ATTNMUX="$work/moved" CMAKE_GENERATOR=Ninja \
  CMAKE_CXX_COMPILER_LAUNCHER="$launcher" bash -euo pipefail -c "$guide") >"$work/guide.log" 2>&1 ||
  fail "the guide's commands failed: $(cat "$work/guide.log")"
for line in "certified: core" "partial: passed" "certified: train" "backend acme"; do
  grep -qF "$line" "$work/guide.log" || fail "the guide's commands did not print '$line': $(cat "$work/guide.log")"
done
acme="$work/author/acme/build/acme.so"

cmake -G Ninja -S "$project" -B "$work/build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$work/moved" \
  -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" >"$work/log" 2>&1 || fail "$(cat "$work/log")"
cmake --build "$work/build" >"$work/log" 2>&1 || fail "$(cat "$work/log")"

# The moved program loads the author's plugin beside its own.
listing=$(ATTNMUX_PLUGIN_PATH=$(dirname "$acme") "$work/moved/bin/attnmux" plugins --json)
for id in reference sdpa flash magi acme; do
  grep -qE "\"id\": *\"$id\"" <<<"$listing" || fail "backend $id is not listed: $listing"
done
grep -qF "$work/moved/lib/attnmux/plugins/magi.so" <<<"$listing" || fail "its own plugins were not found: $listing"

# And another project's own program does the same through the library.
ATTNMUX_PLUGIN_FILES="$acme" "$work/build/host" || fail "the host program failed"
