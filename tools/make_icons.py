#!/usr/bin/env python3
"""Makes conversations about the icons of the Debian package tango-icon-theme: what is this, and what is it called?

    tools/make_icons.py build/data/icons          # writes train.jsonl and heldout.jsonl there

Every icon is drawn in several sizes. Those of 16, 24 and 32 pixels are learned from; of every fifth icon the drawing of
22 pixels is held out: an icon that the model knows in sizes that it has not seen. The answer is made of the file's
folder and name ("places: user trash"). Needs nothing but Python and the package (or --icons FOLDER, its Tango folder).
"""

import argparse
import json
import pathlib
import sys

DEFAULT_ICONS = pathlib.Path("/usr/share/icons/Tango")
TRAIN_SIZES, HELD_OUT_SIZE, HELD_OUT_EVERY = ("16x16", "24x24", "32x32"), "22x22", 5


def fail(message):
    sys.exit(f"make_icons: {message}")


def icons(folder):
    """The PNGs of a folder that are no links to others, in a fixed order."""
    return sorted(path for path in folder.glob("*/*.png") if not path.is_symlink())


def conversation(icon):
    answer = f"{icon.parent.name}: {icon.stem.replace('-', ' ')}"
    return {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]},
                         {"role": "assistant", "content": answer}],
            "images": [str(icon.resolve())]}


def write_jsonl(path, found):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text("".join(json.dumps(conversation(icon)) + "\n" for icon in found), encoding="utf-8")
    temporary.rename(path)


def main():
    parser = argparse.ArgumentParser(description="Makes conversations about the icons of tango-icon-theme.")
    parser.add_argument("folder", type=pathlib.Path, help="where train.jsonl and heldout.jsonl go")
    parser.add_argument("--icons", type=pathlib.Path, default=DEFAULT_ICONS, help=f"default: {DEFAULT_ICONS}")
    options = parser.parse_args()
    train = [icon for size in TRAIN_SIZES for icon in icons(options.icons / size)]
    heldout = icons(options.icons / HELD_OUT_SIZE)[::HELD_OUT_EVERY]
    if len(heldout) < 10:
        fail(f"{options.icons}: only {len(heldout)} icons of {HELD_OUT_SIZE}; install the Debian package "
             "tango-icon-theme or pass --icons FOLDER")
    options.folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(options.folder / "train.jsonl", train)
    write_jsonl(options.folder / "heldout.jsonl", heldout)
    print(f"{options.folder}: {len(train)} icons to train on, {len(heldout)} held out")


if __name__ == "__main__":
    main()
