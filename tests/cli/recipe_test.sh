#!/bin/bash
# tools/recipes/icons.toml on a handful of images: what makes its model and data, explain, a few steps whose loss falls.
# usage: recipe_test.sh SOURCE_FOLDER BUILD_FOLDER
set -euo pipefail
source=$1 build=$2
python=$source/.venv/bin/python
"$python" -c 'import numpy' 2>/dev/null || { echo "skipped: no numpy in .venv, which tools/setup installs"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for size in 16x16 22x22 24x24 32x32; do
  mkdir -p "$work/Tango/$size/places"
  for copy in 1 2 3 4 5 6 7 8 9 10; do
    for image in rgb8 rgba8 palette8 grey8 28x28; do
      cp "$source/tests/golden/images/$image.png" "$work/Tango/$size/places/$image-$copy.png"
    done
  done
  ln -s rgb8-1.png "$work/Tango/$size/places/link.png"
done
"$python" "$source/tools/make_small_vlm.py" "$work/small_vlm"
"$python" "$source/tools/make_icons.py" "$work/icons" --icons "$work/Tango" | tee "$work/made"
grep -q '150 icons to train on, 10 held out' "$work/made"
if "$python" "$source/tools/make_icons.py" "$work/none" --icons "$work" 2>"$work/error"; then
  echo "make_icons.py took a folder without icons"; exit 1
fi
grep -q 'install the Debian package tango-icon-theme' "$work/error"

recipe=$source/tools/recipes/icons.toml
sets=(--set "model.path=$work/small_vlm" --set "data.path=[\"$work/icons/train.jsonl\"]"
  --set "data.heldout=[\"$work/icons/heldout.jsonl\"]" --set data.seq_len=256 --set train.steps=8
  --set train.warmup_steps=0 --set "train.output=$work/run")
"$build/bin/attnmux" train "$recipe" "${sets[@]}" --dry-run | tee "$work/plan"
grep -q '150 documents, 150 images' "$work/plan"
"$build/bin/attnmux" train "$recipe" "${sets[@]}" 2>&1 | tee "$work/log"
"$python" - "$work/run/metrics.jsonl" <<'PYTHON'
import json, sys
steps = [json.loads(line) for line in open(sys.argv[1])]
assert steps[-1]["heldout_loss"] < steps[0]["heldout_loss"] - 1, steps
assert steps[-1]["backends"] == {"magi": 3, "sdpa": 3}, steps[-1]
PYTHON

# explain reads the file alone.
sed "s|^path = \"../../build/data/small_vlm\"|path = \"$work/small_vlm\"|" "$recipe" >"$work/icons.toml"
"$build/bin/attnmux" explain "$work/icons.toml" | tee "$work/explained"
grep -Eq '^model.visual.blocks.0.attn +vision +sdpa ' "$work/explained"
grep -Eq '^model.language_model.layers.0.self_attn +language +magi ' "$work/explained"
