#!/usr/bin/env python3
"""Makes models/io/unicode_additions.cpp: which code points the regular expressions of the `tokenizers` package know that
PCRE2 10.42 does not.

    python tools/make_unicode_additions.py

Asks the package (Oniguruma, Unicode 16 at the time of writing) for the general category of every code point that
Python 3.11's unicodedata (Unicode 14, as PCRE2 10.42) takes for unassigned.
"""

import pathlib
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parent.parent / "models" / "io" / "unicode_additions.cpp"
CATEGORIES = ("Cc Cf Co Ll Lm Lo Lt Lu Mc Me Mn Nd Nl No Pc Pd Pe Pf Pi Po Ps Sc Sk Sm So Zl Zp Zs").split()
BLOCK = 20_000

SOURCE = '''// Made by tools/make_unicode_additions.py; do not edit.
#include "models/io/unicode_additions.h"

#include <array>
#include <cstdint>
#include <cstdio>

namespace attnmux {{
namespace {{

struct Range {{
  uint32_t first;
  uint32_t last;
  std::string_view category;
}};

constexpr std::array<Range, {count}> kAdditions = {{{{
{rows}
}}}};

}}  // namespace

std::string unicode_additions(std::string_view category) {{
  std::string text;
  char range[32];
  for (const Range& added : kAdditions) {{
    if (added.category.substr(0, category.size()) != category) continue;
    std::snprintf(range, sizeof range, "\\\\x{{%X}}-\\\\x{{%X}}", added.first, added.last);
    text += range;
  }}
  return text;
}}

}}  // namespace attnmux
'''


def unassigned():
    return [c for c in range(0x110000) if unicodedata.category(chr(c)) == "Cn" and not 0x40000 <= c < 0xE0000]


def added_categories(codes):
    found = {}
    for category in CATEGORIES:
        splitter = pre_tokenizers.Split(Regex(r"\p{%s}+" % category), "removed")
        for begin in range(0, len(codes), BLOCK):
            block = codes[begin:begin + BLOCK]
            kept = set()
            for _, (first, last) in splitter.pre_tokenize_str("".join(map(chr, block))):
                kept.update(range(first, last))
            found.update({code: category for i, code in enumerate(block) if i not in kept})
    return found


def main():
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"make_unicode_additions: needs Python 3.11 (Unicode 14), this is Unicode {unicodedata.unidata_version}")
    ranges = []
    for code, category in sorted(added_categories(unassigned()).items()):
        if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == category:
            ranges[-1][1] = code
        else:
            ranges.append([code, code, category])
    rows = "\n".join(f'    {{0x{first:X}, 0x{last:X}, "{category}"}},' for first, last, category in ranges)
    OUT.write_text(SOURCE.format(count=len(ranges), rows=rows))
    print(f"{OUT.name}: {len(ranges)} ranges, by tokenizers {tokenizers.__version__}")


if __name__ == "__main__":
    main()
