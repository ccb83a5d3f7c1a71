#!/usr/bin/env python3
"""Times attention on one Hopper GPU: backend magi against cuDNN, FlexAttention and, where given, FlashAttention-3 and FFA.

    tests/bench/ffa_peers.py --fa3 fa3.so --ffa ffa.so --json results.json
    tests/bench/ffa_peers.py --masks causal,prefix_tree --tokens 8192 --heads 32:8 --head-dims 128

Needs torch, the GPU, build/bench/attnmux_ops.so and the plugin magi. --fa3 and --ffa are libraries that register
torch.ops.flash_attn_3.{fwd,bwd} and torch.ops.magi_ffa.{fwd,bwd}; without them their columns are missing.

All contenders run in this one process, in turns, call by call: each round runs every contender once. Inputs are random
normal bf16. A call is timed by two events around it, behind a write of 512 MiB: its inputs come from memory and not
from the second-level cache, and the host enqueues it meanwhile. 3 rounds warm up, the median of --rounds others counts; a
ratio is the median over rounds of peer / ours, so that above 1 we are faster. FLOPs are 4 x attended pairs x heads x
head_dim, 2.5 times that backward. host_ms is what a call took on the host.

Set up outside the timing: our plan, FlexAttention's block mask and its compilation (--compile-workers processes compile
ahead; torch.compile's default options), cuDNN's plan, cu_seqlens, FFA's ranges and their merging. FFA has variants, and a mask several forms as ranges:
each is timed thrice, and the fastest that agrees with ours takes part in the rounds. Every contender's results are held
against ours (relative error below 2e-2); one that differs is named under "disagrees", one that fails under "failed",
and neither is timed.

The JSON file is written anew after each case, so that an interrupted run keeps what it measured.
"""

import argparse
import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"
FULL, CAUSAL, INV_CAUSAL, BI_CAUSAL = range(4)
NAMES = ("full", "causal", "inv_causal", "bi_causal")
WINDOW, BRANCHES, BLOCKS, DOCUMENTS = 1024, 16, 16, 24
BLOCK = 128  # FlexAttention's


# ---------------------------------------------------------------- masks


def document_lengths(tokens):
    """Log-normal around tokens / 24, the same in every run."""
    draw = random.Random(tokens)
    weights = [draw.lognormvariate(0, 0.8) for _ in range(DOCUMENTS)]
    lengths = [max(1, int(tokens * weight / sum(weights))) for weight in weights]
    lengths[-1] += tokens - sum(lengths)
    return lengths


class Mask:
    """One mask in everybody's terms.

    forms: lists of slices (q0, q1, k0, k1, type), each the whole mask; the first is ours. mask_mod: FlexAttention's.
    fa3: keyword arguments of FlashAttention-3, None where it does not know the mask. cudnn: is_causal, or None.
    """

    def __init__(self, forms, mask_mod, fa3=None, cudnn=None):
        self.forms, self.mask_mod, self.fa3, self.cudnn = forms, mask_mod, fa3, cudnn


def full(tokens):
    return Mask([[(0, tokens, 0, tokens, FULL)]], lambda b, h, q, k: q >= 0, {"causal": False}, cudnn=False)


def causal(tokens):
    return Mask([[(0, tokens, 0, tokens, CAUSAL)]], lambda b, h, q, k: q >= k, {"causal": True}, cudnn=True)


def varlen(tokens, is_causal):
    lengths = document_lengths(tokens)
    starts = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    ids = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).int().cuda()
    slices = [(a, b, a, b, CAUSAL if is_causal else FULL) for a, b in zip(starts, starts[1:])]

    def within(b, h, q, k):
        return ids[q] == ids[k]

    def within_causal(b, h, q, k):
        return (q >= k) & (ids[q] == ids[k])

    cu_seqlens = torch.tensor(starts).int().cuda()
    return Mask([slices], within_causal if is_causal else within,
                {"causal": is_causal, "cu_seqlens": cu_seqlens, "longest": max(lengths)})


def window(tokens):
    """A query sees itself and the 1024 keys before it."""
    edge = WINDOW + 1
    slices = [(0, edge, 0, edge, CAUSAL), (edge, tokens, 1, tokens, BI_CAUSAL)]
    return Mask([slices], lambda b, h, q, k: (q >= k) & (q - k <= WINDOW), {"causal": True, "window": WINDOW})


def prefix_tree(tokens):
    """A prefix of a quarter, then 16 equal branches that see it and themselves."""
    prefix = tokens // 4
    branch = (tokens - prefix) // BRANCHES
    slices = [(0, prefix, 0, prefix, CAUSAL)]
    for a in range(prefix, tokens, branch):
        slices += [(a, a + branch, 0, prefix, FULL), (a, a + branch, a, a + branch, CAUSAL)]

    def mask_mod(b, h, q, k):
        return (q >= k) & ((k < prefix) | ((q - prefix) // branch == (k - prefix) // branch))

    return Mask([slices], mask_mod)


def block_causal(tokens):
    """16 blocks; a query sees its own block and those before it."""
    block = tokens // BLOCKS
    rows = [(a, a + block, 0, a + block, FULL) for a in range(0, tokens, block)]
    columns = [(a, tokens, a, a + block, FULL) for a in range(0, tokens, block)]
    pairs = [(a, a + block, c, c + block, FULL) for a in range(0, tokens, block) for c in range(0, a + block, block)]
    return Mask([rows, columns, pairs], lambda b, h, q, k: q // block >= k // block)


MASKS = {"full": full, "causal": causal, "varlen_full": lambda tokens: varlen(tokens, False),
         "varlen_causal": lambda tokens: varlen(tokens, True), "window": window, "prefix_tree": prefix_tree,
         "block_causal": block_causal}


# ---------------------------------------------------------------- contenders: (forward, backward(forward's result))


class Inputs:
    def __init__(self, tokens, heads_q, heads_kv, head_dim):
        torch.manual_seed(0)
        self.heads_q, self.heads_kv, self.scale = heads_q, heads_kv, head_dim**-0.5

        def normal(heads):
            return torch.randn(tokens, heads, head_dim, device="cuda", dtype=torch.bfloat16)

        self.q, self.k, self.v, self.dout = normal(heads_q), normal(heads_kv), normal(heads_kv), normal(heads_q)


def ours(mask, x):
    ops = torch.ops.attnmux_bench
    slices = [{"q": [a, b], "k": [c, d], "type": NAMES[kind]} for a, b, c, d, kind in mask.forms[0]]
    text = json.dumps({"total_q": x.q.size(0), "total_k": x.k.size(0), "slices": slices})
    plan = ops.prepare("magi", text, x.heads_q, x.heads_kv, x.q.size(2), "bf16")
    forward = lambda: ops.forward(plan, x.q, x.k, x.v, x.scale)
    backward = lambda r: ops.backward(plan, x.dout, x.q, x.k, x.v, r[0], r[1], x.scale, False)
    return ops.area(text), (forward, backward), lambda: ops.release(plan)


def cudnn(mask, x):
    q, k, v, dout = (t.transpose(0, 1).unsqueeze(0) for t in (x.q, x.k, x.v, x.dout))
    aten = torch.ops.aten

    def forward():
        r = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, 0.0, mask.cudnn, False, scale=x.scale)
        return r[0].squeeze(0).transpose(0, 1), r

    def backward(result):
        out, lse, cum_q, cum_k, max_q, max_k, seed, offset, _ = result[1]
        grads = aten._scaled_dot_product_cudnn_attention_backward(dout, q, k, v, out, lse, seed, offset, None, cum_q,
                                                                  cum_k, max_q, max_k, 0.0, mask.cudnn, scale=x.scale)
        return tuple(g.squeeze(0).transpose(0, 1) for g in grads)

    return forward, backward


def block_mask(mask, tokens):
    """Each block of 128 x 128 pairs: empty, partial or full; from the mask's own predicate, 16 rows of blocks at a time."""
    columns = torch.arange(tokens, device="cuda")[None, :]
    zero = torch.zeros((), dtype=torch.long, device="cuda")
    any_pair, every_pair = [], []
    for begin in range(0, tokens, 16 * BLOCK):
        rows = torch.arange(begin, min(begin + 16 * BLOCK, tokens), device="cuda")[:, None]
        pairs = mask.mask_mod(zero, zero, rows, columns).expand(rows.size(0), tokens)
        blocks = pairs.reshape(-1, BLOCK, tokens // BLOCK, BLOCK)
        any_pair.append(blocks.any(3).any(1))
        every_pair.append(blocks.all(3).all(1))
    any_pair, every_pair = torch.cat(any_pair), torch.cat(every_pair)

    def ordered(blocks):  # [rows, columns] bool -> count a row, columns with the chosen ones first
        return (blocks.sum(1).int()[None, None],
                torch.argsort(blocks.int(), dim=1, descending=True, stable=True).int()[None, None].contiguous())

    return BlockMask.from_kv_blocks(*ordered(any_pair & ~every_pair), *ordered(every_pair), BLOCK_SIZE=BLOCK,
                                    mask_mod=mask.mask_mod)


def flex(mask, x):
    torch._dynamo.reset()  # one compilation a case; dynamo gives up after a few for one function
    q, k, v, dout = (t.transpose(0, 1).unsqueeze(0).contiguous() for t in (x.q, x.k, x.v, x.dout))
    blocks = block_mask(mask, x.q.size(0))
    compiled = torch.compile(flex_attention, dynamic=False)
    leaves = [t.requires_grad_() for t in (q, k, v)]

    def forward():
        out = compiled(*leaves, block_mask=blocks, scale=x.scale, enable_gqa=x.heads_q != x.heads_kv)
        return out.squeeze(0).transpose(0, 1), out

    def backward(result):
        grads = torch.autograd.grad(result[1], leaves, dout, retain_graph=True)
        return tuple(g.squeeze(0).transpose(0, 1) for g in grads)

    return forward, backward


def fa3(mask, x):
    call = mask.fa3
    cu_seqlens, longest = call.get("cu_seqlens"), call.get("longest")
    is_causal, left = call["causal"], call.get("window", -1)
    right = 0 if "window" in call else -1
    shaped = (lambda t: t) if cu_seqlens is not None else (lambda t: t.unsqueeze(0))
    q, k, v, dout = (shaped(t) for t in (x.q, x.k, x.v, x.dout))
    ops = torch.ops.flash_attn_3

    def forward():
        r = ops.fwd.default(q, k, v, None, None, None, None, cu_seqlens, cu_seqlens, None, None, None, longest, longest,
                            None, None, None, None, None, None, None, None, None, x.scale, is_causal, left, right, 0,
                            0.0, True, None, 1, None, 0)
        return r[0].reshape(x.q.shape), r

    def backward(result):
        grads = [torch.empty_like(t) for t in (q, k, v)]
        ops.bwd.default(dout, q, k, v, result[1][0], result[1][1], *grads, cu_seqlens, cu_seqlens, None, None, longest,
                        longest, x.scale, is_causal, left, right, 0.0, False, 0)
        return tuple(g.reshape(t.shape) for g, t in zip(grads, (x.q, x.k, x.v)))

    return forward, backward


def merged(outer, inner, kinds):
    """Ranges sorted by the outer one, and each outer one once: FFA's arguments for merging."""
    order = sorted(range(len(outer)), key=lambda i: (outer[i], i))
    firsts = [n for n, i in enumerate(order) if n == 0 or outer[i] != outer[order[n - 1]]]
    distinct = [outer[order[n]] for n in firsts]
    padding = len(order) - len(distinct)
    tensor = lambda values: torch.tensor(values, dtype=torch.int32, device="cuda")
    return (tensor([outer[i] for i in order]), tensor([inner[i] for i in order]), tensor([kinds[i] for i in order]),
            tensor(distinct + [(0, 0)] * padding), tensor(firsts + [len(order)] * (padding + 1)),
            tensor(len(distinct)))


def disjoint(ranges):
    ranges = sorted(ranges)
    return all(a[1] <= b[0] for a, b in zip(ranges, ranges[1:]))


def ffa_forwards(mask, x):
    """{variant: forward}, for each form of the mask."""
    variants = {}
    for number, slices in enumerate(mask.forms):
        queries, keys = [s[0:2] for s in slices], [s[2:4] for s in slices]
        kinds = [s[4] for s in slices]
        plain = tuple(torch.tensor(v, dtype=torch.int32, device="cuda") for v in (queries, keys, kinds))
        merge = merged(queries, keys, kinds)

        def forward(code, ranges=plain, extra=(None, None, None)):
            out = torch.empty_like(x.q, dtype=torch.float32 if code == 1 else x.q.dtype)
            lse = torch.full(x.q.shape[:2], float("-inf"), device="cuda")
            r = torch.ops.magi_ffa.fwd.default(x.q, x.k, x.v, out, lse, *ranges, None, *extra, x.scale, 0, code)
            return r[0], r[1]

        if disjoint(queries):
            variants[f"no atomics, form {number}"] = lambda f=forward: f(0)
        variants[f"atomics, form {number}"] = lambda f=forward: f(1)
        variants[f"merged, form {number}"] = lambda f=forward, m=merge: f(2, m[:3], m[3:])
    return variants


def ffa_backwards(mask, x):
    """{variant: backward(forward's result)}."""
    variants = {}
    group = x.heads_q // x.heads_kv
    for number, slices in enumerate(mask.forms):
        queries, keys = [s[0:2] for s in slices], [s[2:4] for s in slices]
        kinds = [s[4] for s in slices]
        plain = tuple(torch.tensor(v, dtype=torch.int32, device="cuda") for v in (queries, keys, kinds))
        by_key = merged(keys, queries, kinds)
        merge = (by_key[1], by_key[0], by_key[2])

        def backward(result, code, ranges=plain, extra=(None, None, None)):
            dq = torch.zeros_like(x.q, dtype=torch.float32)
            fresh = torch.zeros_like if code in (1, 2) else torch.empty_like
            dk, dv = fresh(x.k, dtype=torch.float32), fresh(x.v, dtype=torch.float32)
            torch.ops.magi_ffa.bwd.default(x.dout, x.q, x.k, x.v, result[0], dq, dk, dv, result[1], *ranges, *extra,
                                           x.scale, 0, code)
            return tuple(g.to(x.q.dtype) for g in (dq, dk, dv))

        variants[f"atomics, form {number}"] = lambda r, f=backward: f(r, 1)
        variants[f"merged, form {number}"] = lambda r, f=backward, m=merge, e=by_key[3:]: f(r, 2, m, e)
        if disjoint(keys) and keys == sorted(keys):
            if group == 1:
                variants[f"no atomics, form {number}"] = lambda r, f=backward: f(r, 0)
            elif group in (2, 4, 8):
                variants[f"group at once, form {number}"] = lambda r, f=backward, g=group: f(r, 10 + g)
    return variants


# ---------------------------------------------------------------- measuring

cold = None


def timed(call):
    """Events before and after, the host's time; nothing waits."""
    global cold
    if cold is None:
        cold = torch.empty(512 << 20, dtype=torch.uint8, device="cuda")
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    cold.zero_()
    before.record()
    start = time.perf_counter()
    call()
    host = time.perf_counter() - start
    after.record()
    return before, after, host * 1e3


def rounds(calls, count, warm_up=3):
    """{name: ([ms a round], median host ms)}"""
    times, hosts = {name: [] for name in calls}, {name: [] for name in calls}
    for number in range(warm_up + count):
        this_round = {name: timed(call) for name, call in calls.items()}
        torch.cuda.synchronize()
        if number >= warm_up:
            for name, (before, after, host) in this_round.items():
                times[name].append(before.elapsed_time(after))
                hosts[name].append(host)
    return {name: (times[name], statistics.median(hosts[name])) for name in calls}


def error(got, want):
    """Of several tensors, the largest relative one; NaN counts as infinite."""
    worst = 0.0
    for a, b in zip(got, want):
        size = b.float().norm().item()
        difference = (a.float() - b.float()).norm().item()
        worst = max(worst, difference / size if size else difference) if difference == difference else float("inf")
    return worst


def fastest(variants, results, want, disagrees, label):
    """The name of the fastest variant that agrees with `want`, by three rounds."""
    agreeing = {}
    for name, call in variants.items():
        off = error(results(call()), want)
        if off < 2e-2:
            agreeing[name] = call
        else:
            disagrees[f"{label}, {name}"] = off
    measured = rounds(agreeing, 3, warm_up=1)
    return min(agreeing, key=lambda name: statistics.median(measured[name][0]), default=None)


def measure(name, tokens, heads_q, heads_kv, head_dim, peers, count):
    mask = MASKS[name](tokens)
    x = Inputs(tokens, heads_q, heads_kv, head_dim)
    area, (our_forward, our_backward), release = ours(mask, x)
    our_result = our_forward()
    our_grads = our_backward(our_result)
    forwards, backwards = {"magi": our_forward}, {"magi": lambda: our_backward(our_result)}
    disagrees, failed, variants = {}, {}, {}

    def add(peer, make):
        try:
            forward, backward = make(mask, x)
            result = forward()
            off = max(error([result[0]], [our_result[0]]), error(backward(result), our_grads))
        except RuntimeError as problem:  # what PyTorch, its compiler and the libraries raise
            failed[peer] = str(problem).strip().splitlines()[0]
            return
        if off < 2e-2:
            forwards[peer], backwards[peer] = forward, lambda: backward(result)
        else:
            disagrees[peer] = off

    if "cudnn" in peers and mask.cudnn is not None:
        add("cudnn", cudnn)
    if "flex" in peers:
        add("flex", flex)
    if "fa3" in peers and mask.fa3 is not None:
        add("fa3", fa3)
    if "ffa" in peers and head_dim == 128:
        options = ffa_forwards(mask, x)
        best = fastest(options, lambda r: [r[0]], our_result[:1], disagrees, "ffa forward")
        if best:
            result = tuple(t.to(d) for t, d in zip(options[best](), (torch.bfloat16, torch.float32)))
            forwards["ffa"], variants["fwd"] = options[best], best
            options = {name: lambda call=call: call(result) for name, call in ffa_backwards(mask, x).items()}
            best = fastest(options, lambda r: r, our_grads, disagrees, "ffa backward")
            if best:
                backwards["ffa"], variants["bwd"] = options[best], best

    rows = []
    for kind, calls, factor in (("fwd", forwards, 4.0), ("bwd", backwards, 10.0)):
        measured = rounds(calls, count)
        own = measured["magi"][0]
        row = {"mask": name, "tokens": tokens, "heads": f"{heads_q}:{heads_kv}", "head_dim": head_dim, "pass": kind,
               "area": area, "ms": {}, "tflops": {}, "host_ms": {}, "ratio": {}}
        for peer, (times, host) in measured.items():
            row["ms"][peer] = statistics.median(times)
            row["tflops"][peer] = factor * area * heads_q * head_dim / (row["ms"][peer] * 1e9)
            row["host_ms"][peer] = host
            if peer != "magi":
                row["ratio"][peer] = statistics.median(theirs / ours for theirs, ours in zip(times, own))
        if kind in variants:
            row["ffa_variant"] = variants[kind]
        row.update({key: value for key, value in (("disagrees", disagrees), ("failed", failed)) if value})
        rows.append(row)
    release()
    return rows


def show(row):
    cells = "  ".join(f"{peer} {tflops:.0f}" + (f" ({row['ratio'][peer]:.2f})" if peer in row["ratio"] else "")
                      for peer, tflops in row["tflops"].items())
    print(f"{row['tokens']:6} {row['heads']:5} d{row['head_dim']:<3} {row['mask']:13} {row['pass']}: {cells}"
          f"  host {row['host_ms']['magi'] * 1e3:.0f} us" + "".join(f"  {key.upper()} {row[key]}" for key in ("disagrees", "failed") if key in row),
          flush=True)


def compile_ahead(cases, workers, arguments):
    """FlexAttention's kernels into the compiler's cache, by several processes at once."""
    environment = dict(os.environ, TORCHINDUCTOR_COMPILE_THREADS="1")
    running = [subprocess.Popen([sys.executable, __file__, *arguments, "--compile-part", f"{part}/{workers}"],
                                env=environment) for part in range(min(workers, len(cases)))]
    for process in running:
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default=BUILD / "bench" / "attnmux_ops.so", help="the library of attnmux's operators")
    parser.add_argument("--fa3", help="library that registers torch.ops.flash_attn_3")
    parser.add_argument("--ffa", help="library that registers torch.ops.magi_ffa")
    parser.add_argument("--no-flex", action="store_true", help="leave FlexAttention out")
    parser.add_argument("--no-cudnn", action="store_true", help="leave cuDNN out")
    parser.add_argument("--masks", default=",".join(MASKS))
    parser.add_argument("--tokens", default="8192,32768")
    parser.add_argument("--heads", default="16:16,32:8")
    parser.add_argument("--head-dims", default="128")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--compile-workers", type=int, default=0, help="processes that compile FlexAttention ahead")
    parser.add_argument("--commit", default="", help="what of ours is measured, for the JSON file")
    parser.add_argument("--compile-part", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=pathlib.Path, help="rows of an earlier run in it are kept, those of the same case "
                                                          "replaced")
    options = parser.parse_args()

    cases = [(mask, int(tokens), *map(int, heads.split(":")), int(head_dim)) for head_dim in options.head_dims.split(",")
             for tokens in options.tokens.split(",") for heads in options.heads.split(",")
             for mask in options.masks.split(",")]
    if unknown := set(case[0] for case in cases) - set(MASKS):
        parser.error(f"unknown masks {sorted(unknown)}; known: {', '.join(MASKS)}")
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        sys.exit("a GPU of compute capability 9.0 is needed; torch sees " +
                 (torch.cuda.get_device_name() if torch.cuda.is_available() else "none"))

    if options.compile_part:
        part, workers = map(int, options.compile_part.split("/"))
        for name, tokens, heads_q, heads_kv, head_dim in cases[part::workers]:
            forward, backward = flex(MASKS[name](tokens), Inputs(tokens, heads_q, heads_kv, head_dim))
            backward(forward())
        return

    peers = {"cudnn", "flex"}
    if options.no_flex:
        peers.discard("flex")
    if options.no_cudnn:
        peers.discard("cudnn")
    torch.ops.load_library(str(options.ops))
    for name, library in (("fa3", options.fa3), ("ffa", options.ffa)):
        if library:
            torch.ops.load_library(os.path.abspath(library))
            peers.add(name)
    if options.compile_workers and "flex" in peers:
        compile_ahead(cases, options.compile_workers, sys.argv[1:])

    document = {"rows": []}
    if options.json and options.json.exists():
        document = json.loads(options.json.read_text())
    document.update({
        "commit": options.commit or document.get("commit", ""),
        "date": datetime.date.today().isoformat(),
        "card": torch.cuda.get_device_name(),
        "driver": subprocess.run(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
                                 stdout=subprocess.PIPE, text=True).stdout.strip().splitlines()[0],
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "rounds": options.rounds})
    case_of = lambda row: (row["mask"], row["tokens"], row["heads"], row["head_dim"], row["pass"])
    for case in cases:
        rows = measure(*case, peers, options.rounds)
        for row in rows:
            show(row)
        replaced = {case_of(row) for row in rows}
        document["rows"] = [row for row in document["rows"] if case_of(row) not in replaced] + rows
        if options.json:
            options.json.write_text(json.dumps(document, indent=1) + "\n")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
