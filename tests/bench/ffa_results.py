#!/usr/bin/env python3
"""Writes backends/RESULTS.md from what ffa_peers.py measured.

    tests/bench/ffa_results.py                # from tests/bench/results/ffa_peers.json and the kernels' headers
    tests/bench/ffa_results.py --check        # exit status 1 where the page is not what the files give

A bar that a case misses is shown as missed, one that was not measured as not measured.
"""

import argparse
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MEASURED = ROOT / "tests" / "bench" / "results" / "ffa_peers.json"
PAGE = ROOT / "backends" / "RESULTS.md"
KERNELS = {"Forward": "ffa_fwd_sm90.cuh", "Backward": "ffa_bwd_sm90.cuh"}

PEERS = {"cudnn": "cuDNN", "flex": "FlexAttention", "fa3": "FlashAttention-3", "ffa": "FFA"}
ALL = ("full", "causal", "varlen_full", "varlen_causal", "window", "prefix_tree", "block_causal")
SPARSE = ("varlen_full", "varlen_causal", "window", "prefix_tree", "block_causal")
KNOWN_TO_FA3 = ("full", "causal", "varlen_full", "varlen_causal", "window")
HEADS = ("16:16", "32:8")

# What is aimed at: (peer, head_dim, tokens, masks, forward, backward) in multiples of the peer's speed.
BARS = (
    ("cudnn", 128, (8192, 32768), ("full", "causal"), 1.0, 0.95),
    ("flex", 128, (8192, 32768), SPARSE, 1.5, 1.2),
    ("ffa", 128, (8192, 32768), ALL, 1.0, 0.95),
    ("fa3", 128, (32768,), KNOWN_TO_FA3, 0.92, 0.88),
    ("fa3", 64, (32768,), KNOWN_TO_FA3, 0.9, None),
)


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def bars(by_case):
    rows = []
    for peer, head_dim, lengths, masks, forward, backward in BARS:
        for kind, bar in (("fwd", forward), ("bwd", backward)):
            if bar is None:
                continue
            ratios, missing = {}, 0
            for tokens in lengths:
                for heads in HEADS:
                    for mask in masks:
                        row = by_case.get((mask, tokens, heads, head_dim, kind), {"ratio": {}})
                        if peer in row["ratio"]:
                            ratios[f"{mask} {tokens} {heads}"] = row["ratio"][peer]
                        else:
                            missing += 1
            missed = {case: ratio for case, ratio in ratios.items() if ratio < bar}
            met = f"{len(ratios) - len(missed)} of {len(ratios) + missing}"
            if missing:
                met += f" ({missing} not measured)"
            span = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}" if ratios else "-"
            rows.append([PEERS[peer], str(head_dim), " and ".join(map(str, lengths)), kind, f"{bar:.2f}", span, met,
                         ", ".join(f"{case}: {ratio:.2f}" for case, ratio in missed.items()) or "-"])
    return table(["peer", "head_dim", "tokens", "pass", "bar", "measured", "cases that meet it", "missed"], rows)


def tree_bar(by_case):
    """Forward and backward of a prefix tree against causal, time per attended pair."""
    lines = []
    for heads in HEADS:
        rows = [[by_case.get((mask, 65536, heads, 128, kind)) for kind in ("fwd", "bwd")]
                for mask in ("prefix_tree", "causal")]
        if not all(row for pair in rows for row in pair):
            lines.append(f"- heads {heads}: not measured")
            continue
        tree, causal = (sum(row["ms"]["magi"] for row in pair) / pair[0]["area"] for pair in rows)
        lines.append(f"- heads {heads}: {tree / causal:.3f} ({'met' if tree / causal < 1.1 else 'missed'})")
    return "\n".join(lines)


def speeds(rows, tokens, head_dim):
    """One line a mask and heads: TFLOP/s forward/backward of everybody."""
    chosen = [row for row in rows if row["tokens"] == tokens and row["head_dim"] == head_dim]
    peers = [peer for peer in PEERS if any(peer in row["tflops"] for row in chosen)]
    lines = {}
    for row in chosen:
        lines.setdefault((row["heads"], row["mask"]), {})[row["pass"]] = row

    def cell(passes, peer):
        speed = [f"{passes[kind]['tflops'][peer]:.0f}" if peer in passes.get(kind, {"tflops": {}})["tflops"] else "-"
                 for kind in ("fwd", "bwd")]
        text = "/".join(speed)
        if peer != "magi" and any(peer in passes.get(kind, {"ratio": {}})["ratio"] for kind in ("fwd", "bwd")):
            text += " (" + "/".join(f"{passes[kind]['ratio'][peer]:.2f}" if peer in passes[kind]["ratio"] else "-"
                                    for kind in ("fwd", "bwd")) + ")"
        return text if text != "-/-" else ""

    order = {mask: place for place, mask in enumerate(ALL)}
    body = [[heads, mask, cell(passes, "magi"),
             "/".join(f"{passes[kind]['host_ms']['magi'] * 1e3:.0f}" for kind in ("fwd", "bwd") if kind in passes),
             *(cell(passes, peer) for peer in peers)]
            for (heads, mask), passes in sorted(lines.items(), key=lambda item: (item[0][0], order[item[0][1]]))]
    return table(["heads", "mask", "magi", "host, us", *(PEERS[peer] for peer in peers)], body)


def disagreements(rows):
    seen = sorted({f"{row['mask']} {row['tokens']} {row['heads']} d{row['head_dim']}: {who} {how}"
                   for row in rows for how in ("disagrees", "failed") for who in row.get(how, {})})
    return "None." if not seen else "\n".join(f"- {line}" for line in seen)


def history(name):
    """What the header comment of a kernel says from "History" on."""
    lines = (ROOT / "backends" / "ffa_sm90" / name).read_text().split("#pragma once")[0].splitlines()
    begin = next((n for n, line in enumerate(lines) if line.startswith("// History")), None)
    if begin is None:
        sys.exit(f"{name}: its header comment has no line that begins with \"// History\"")
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in lines[begin:])


def page(measured):
    rows = measured["rows"]
    by_case = {(row["mask"], row["tokens"], row["heads"], row["head_dim"], row["pass"]): row for row in rows}
    cudnn = measured["cudnn"]
    parts = [
        "# magi on Hopper: measured",
        "Written by `tests/bench/ffa_results.py` from `tests/bench/results/ffa_peers.json`, which `tests/bench/ffa_peers.py` "
        "measures, and the kernels' headers; not edited by hand.",
        f"{measured['date']}, commit {measured['commit']}, one {measured['card']}, driver {measured['driver']}, torch {measured['torch']}, CUDA "
        f"{measured['cuda']}, cuDNN {cudnn // 10000}.{cudnn // 100 % 100}.{cudnn % 100}. bf16, one sequence, random "
        f"normal inputs, all contenders in turns in one process, medians of {measured['rounds']} rounds: how, and the "
        "masks, in the header of `tests/bench/ffa_peers.py`. FLOPs count attended pairs. Speeds in TFLOP/s as "
        "forward/backward; in brackets our speed over the peer's, above 1: we are faster. FFA by its fastest variant "
        "for each mask, FlexAttention with the default options of torch.compile. *host* is what a call of ours took on the host.",
        "## Bars",
        bars(by_case),
        "Prefix tree of 16 branches, 65536 tokens, head_dim 128: time of forward and backward per attended pair over that "
        "of a causal mask of that length; below 1.1 is aimed at.\n\n" + tree_bar(by_case),
    ]
    for head_dim in sorted({row["head_dim"] for row in rows}, reverse=True):
        for tokens in sorted({row["tokens"] for row in rows if row["head_dim"] == head_dim}):
            parts += [f"## {tokens} tokens, head_dim {head_dim}", speeds(rows, tokens, head_dim)]
    parts += ["## Peers left out", "For they were off ours by more than 2e-2, or failed:\n\n" + disagreements(rows), "## Versions of the kernels",
              "From their headers; each measured when it was written, in runs of its own."]
    for title, name in KERNELS.items():
        parts += [f"{title}, `ffa_sm90/{name}`:", f"```\n{history(name)}\n```"]
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    options = parser.parse_args()
    text = page(json.loads(MEASURED.read_text()))
    if options.check:
        sys.exit(0 if PAGE.exists() and PAGE.read_text() == text else f"{PAGE.name} is not what the results give: run "
                                                                      "tests/bench/ffa_results.py")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
