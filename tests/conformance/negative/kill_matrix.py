#!/usr/bin/env python3
"""Runs the conformance suite on plugins that are wrong on purpose.

    kill_matrix.py ATTNMUX_CHECK ATTNMUX_CHECK_MUTABLE FOLDER_OF_PLUGINS MATRIX.txt... [defect ...]

Each plugin must be found by the family and check that the matrix names, and families that have nothing to do with its
defect must pass. Then the other way round: with a check switched off, the defect that it alone finds must live. Prints
`killed N/N` and `needed M/M` (checks that are needed); exit status 1 unless all of them are.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile


@dataclasses.dataclass
class Row:
    defect: str
    status: int
    family: str
    check: str
    alone: bool
    passing: list
    flags: list


def read_matrix(path):
    rows = []
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        defect, status, finding, passing, flags = ([part.strip() for part in line.split("|")] + [""])[:5]
        family, check = finding.split(": ")
        words = check.split()
        rows.append(Row(defect, int(status), family, words[0], words[1:] == ["alone"], passing.split(), flags.split()))
    return rows


def without_cases_of_others(command, family):
    kept = []
    for word in command:
        if kept and kept[-1] == "--case" and not word.startswith(family + "/"):
            kept.pop()
        else:
            kept.append(word)
    return kept


def run(program, folder, row, without=None):
    """(exit status, scorecard or None, what it printed)"""
    with tempfile.TemporaryDirectory() as scratch:
        card = pathlib.Path(scratch, "card.json")
        command = [program, "--plugin", f"{folder}/negative_{row.defect}.so", "--json", str(card), *row.flags]
        if without:  # other families have been heard
            command = without_cases_of_others(command, row.family)
        if "--profile" not in row.flags:
            command += ["--profile", "train"]
        if "--case" not in row.flags and row.family not in ("load", "profile"):
            families = row.passing if row.family == "lives" else [row.family, *row.passing]
            for family in families:
                command += ["--family", family]
        environment = dict(os.environ)
        if without:
            environment["ATTNMUX_CHECK_WITHOUT"] = without
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        text = card.read_text(encoding="utf-8") if card.is_file() else ""
        return done.returncode, json.loads(text) if text else None, done.stdout + done.stderr


def bad(card, family):
    return [case for case in card["cases"]
            if case["case"].startswith(family + "/") and case["status"] in ("FAIL", "CRASH", "TIMEOUT")]


def not_killed(program, folder, row):
    """Why the plugin counts as not found; None if it was."""
    status, card, text = run(program, folder, row)
    if status != row.status:
        return f"exit status {status}, expected {row.status}\n{text}"
    if row.family == "load":
        code = (card or {}).get("not_loaded", {}).get("code")
        return None if code == row.check else f"refused with {code}, expected {row.check}\n{text}"
    if card is None:
        return "no scorecard\n" + text
    if row.family == "profile":
        return None if card["not_executed"] and not card["certified"] else "nothing is missing\n" + text
    if row.family == "lives":
        return None if any(case["status"] == row.check for case in card["cases"]) else f"no {row.check}\n{text}"
    found = {failure["check"] for case in bad(card, row.family) for failure in case["failures"]}
    if row.check not in found:
        return f"{row.family} failed for {sorted(found) or 'nothing'}, expected {row.check}\n{text}"
    if row.alone and found != {row.check}:
        return f"{row.family} failed for {sorted(found)}, expected {row.check} alone\n{text}"
    for family in row.passing:
        executed = [case for case in card["cases"]
                    if case["case"].startswith(family + "/") and case["status"] != "DECLINED"]
        if bad(card, family) or not executed:
            return f"family {family} should pass\n{text}"
    return None


def is_dead(program, folder, row):
    """Why the check is not needed for this defect; None if the plugin lives without it."""
    status, _, text = run(program, folder, row, without=row.check)
    return None if status == 0 else f"found without {row.check}, exit status {status}\n{text}"


def main():
    program, mutable, folder, *rest = sys.argv[1:]
    matrices = [word for word in rest if word.endswith(".txt")]
    only = [word for word in rest if word not in matrices]
    rows = [row for matrix in matrices for row in read_matrix(matrix)]
    built = {path.stem.removeprefix("negative_") for path in pathlib.Path(folder).glob("negative_*.so")}
    named = {row.defect for row in rows}
    problems = [f"{defect} is built and not in the matrix" for defect in sorted(built - named)]
    problems += [f"{defect} is in the matrix and not built" for defect in sorted(named - built)]
    if only:
        problems, rows = [], [row for row in rows if row.defect in only]
    killed = needed = 0
    alone = [row for row in rows if row.alone]
    # One more than cores: some of them wait for a time limit.
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count() + 1) as pool:
        for row, problem in zip(rows, pool.map(lambda row: not_killed(program, folder, row), rows)):
            killed += problem is None and row.family != "lives"
            if problem:
                problems.append(f"LIVES {row.defect}: {problem}")
        for row, problem in zip(alone, pool.map(lambda row: is_dead(mutable, folder, row), alone)):
            needed += problem is None
            if problem:
                problems.append(f"DEAD {row.check} ({row.defect}): {problem}")
    if not only:
        names = pathlib.Path(__file__).parent.parent / "checks.cpp"
        checks = re.findall(r'\{Check::\w+, "([^"]+)"\}', names.read_text(encoding="utf-8"))
        if len(matrices) == 1:  # without MPI there are no wrong groups
            checks = [check for check in checks if not check.startswith(("group.", "fault."))]
        problems += [f"no defect of the matrix shows that {check} is needed"
                     for check in sorted(set(checks) - {row.check for row in alone})]
    print("\n".join(problems))
    print(f"killed {killed}/{sum(row.family != 'lives' for row in rows)}")
    print(f"needed {needed}/{len(alone)}")
    sys.exit(1 if problems or not rows else 0)


if __name__ == "__main__":
    main()
