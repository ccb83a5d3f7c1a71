#!/usr/bin/env python3
"""Times a training step of ours against transformers with SDPA, on the same cores, in turns.

    tests/bench/train_step.py build/data/smollm2                       # seq 1024, one document, backend magi
    tests/bench/train_step.py build/data/smollm2 --documents 8 --backend flash --reps 10

Needs torch and transformers and the built program build/bench/train_step_bench. One
step is forward, loss, backward, clipping and AdamW, fp32, on one sequence of random tokens; transformers runs its fused
AdamW. Each repetition runs one step of each; medians and the ratio of the medians are printed (above 1: ours is
faster), of wall time and, for machines that others use at the same time, of CPU time (set GOMP_SPINCOUNT=0 there, or
threads that wait for each other count as work). With --documents above 1 transformers attends causally over the whole
sequence, as a packed batch does there without a mask of its own: the same work for everything but attention.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import time

import torch
import transformers

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system


class Ours:
    def __init__(self, arguments):
        command = [arguments.program, arguments.model, str(arguments.seq_len), arguments.backend,
                   str(arguments.documents)]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        assert self.process.stdout.readline() == "ready\n", "train_step_bench did not start"

    def pid(self):
        return self.process.pid

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, loss, self.flops = (float(x) for x in self.process.stdout.readline().split())
        return seconds, loss


class Transformers:
    def __init__(self, arguments):
        torch.manual_seed(0)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32,
                                                                       attn_implementation="sdpa")
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=True)
        self.ids = torch.randint(self.model.config.vocab_size, (1, arguments.seq_len))

    def pid(self):
        return os.getpid()

    def step(self):
        start = time.perf_counter()
        loss = self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start, float(loss.detach())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--documents", type=int, default=1)
    parser.add_argument("--backend", default="magi")
    parser.add_argument("--reps", type=int, default=7)
    parser.add_argument("--program", type=pathlib.Path, default=BUILD / "bench" / "train_step_bench")
    arguments = parser.parse_args()

    sides = {"attnmux": Ours(arguments), "transformers": Transformers(arguments)}
    wall, cpu = {name: [] for name in sides}, {name: [] for name in sides}
    for rep in range(arguments.reps + 1):  # the first one warms up
        for name, side in sides.items():
            before = cpu_seconds(side.pid())
            seconds, loss = side.step()
            used = cpu_seconds(side.pid()) - before
            if rep > 0:
                wall[name].append(seconds)
                cpu[name].append(used)
            print(f"{'warm-up' if rep == 0 else rep:>8} {name:>12} {seconds:7.3f} s, CPU {used:7.2f} s, "
                  f"loss {loss:.4f}", flush=True)
    print(f"seq {arguments.seq_len}, {arguments.documents} document(s), backend {arguments.backend}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}")
    for what, times in (("wall time", wall), ("CPU time", cpu)):
        ours, theirs = times["attnmux"], times["transformers"]
        print(f"{what}: attnmux {statistics.median(ours):.3f} s, transformers {statistics.median(theirs):.3f} s, "
              f"ratio of medians {statistics.median(theirs) / statistics.median(ours):.3f}, "
              f"of minima {min(theirs) / min(ours):.3f}")
    print(f"attnmux: {sides['attnmux'].flops / min(wall['attnmux']) / 1e9:.0f} GFLOP/s at its fastest")


if __name__ == "__main__":
    main()
