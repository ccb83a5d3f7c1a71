#!/usr/bin/env python3
"""Cuts the Jargon File into its entries, one JSON line each, and holds every fiftieth out.

    tools/make_jargon.py build/data/jargon          # writes train.jsonl and heldout.jsonl there

Reads what the Debian package jargon-text installs (or --text FILE, plain or gzipped). An entry is its head line
(":blivet: /bliv'@t/, n.") and what follows up to the next, without the indentation of the file; the lists of heads
that open each letter's section are left out. The output depends on the input alone. Needs nothing but Python.
"""

import argparse
import gzip
import json
import os
import pathlib
import re
import sys

DEFAULT_TEXT = pathlib.Path("/usr/share/doc/jargon-text/jargon.txt.gz")
HELD_OUT_EVERY = 50
INDENT = "   "
LEXICON_BEGIN = re.compile(r"Glossary$")
LEXICON_END = re.compile(r" +Part\sIII\.\sAppendices$")  # \s: the blanks do not break
SECTION = re.compile(r"  \S$")  # a letter; its list of heads follows
HEAD = re.compile(r"   :\S.*?:")


def fail(message):
    sys.exit(f"make_jargon: {message}")


def read_text(path):
    if not path.is_file():
        fail(f"{path} is missing; install the Debian package jargon-text or pass --text FILE")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return data.decode("utf-8")


def lexicon(lines, path):
    """The lines of the glossary."""
    begin = next((i for i, line in enumerate(lines) if LEXICON_BEGIN.match(line)), None)
    end = next((i for i, line in enumerate(lines) if LEXICON_END.match(line)), None)
    if begin is None or end is None or end < begin:
        fail(f"{path}: no lines 'Glossary' and 'Part III. Appendices' around the lexicon; is it the Jargon File 4.4.7?")
    return lines[begin + 1:end]


def entries(lines):
    """The text of each entry, in order."""
    entry = None  # lines of the entry that is open
    for line in lines:
        if HEAD.match(line) or SECTION.match(line):
            if entry is not None:
                yield "\n".join(entry).strip()
            entry = [] if HEAD.match(line) else None
        if entry is not None:
            entry.append(line.removeprefix(INDENT).rstrip())
    if entry is not None:
        yield "\n".join(entry).strip()


def write_jsonl(path, texts):
    temporary = path.with_name(path.name + f".tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            for text in texts:
                file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description="Cuts the Jargon File into its entries as JSON lines.")
    parser.add_argument("folder", type=pathlib.Path, help="where train.jsonl and heldout.jsonl go")
    parser.add_argument("--text", type=pathlib.Path, default=DEFAULT_TEXT, help=f"default: {DEFAULT_TEXT}")
    options = parser.parse_args()
    texts = list(entries(lexicon(read_text(options.text).split("\n"), options.text)))
    if len(texts) < HELD_OUT_EVERY:
        fail(f"{options.text}: only {len(texts)} entries; is it the Jargon File?")
    heldout = texts[HELD_OUT_EVERY - 1::HELD_OUT_EVERY]
    train = [text for i, text in enumerate(texts) if i % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]
    options.folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(options.folder / "train.jsonl", train)
    write_jsonl(options.folder / "heldout.jsonl", heldout)
    print(f"{options.folder}: {len(train)} entries to train on, {len(heldout)} held out")


if __name__ == "__main__":
    main()
