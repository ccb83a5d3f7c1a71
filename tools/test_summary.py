#!/usr/bin/env python3
"""Counts what a ctest run did: one line `N passed, N failed, N skipped`, exit status 1 if anything failed or nothing ran.

    tools/test_summary.py BUILD_DIR [ctest selection, e.g. -R loader]

Each GoogleTest program counts by its XML report, test by test; one that crashed, failed without saying where, or left
no report counts as failed. Every other ctest entry counts as one test. Reads BUILD_DIR/test-reports/ctest.xml, which
`ctest --output-junit` wrote.
"""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

REPORT_FLAG = "--gtest_output=xml:"


def planned(build, selection):
    """Name of each ctest entry -> its GoogleTest report, or None."""
    listing = subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1", *selection],
                             check=True, capture_output=True, text=True).stdout
    entries = {}
    for test in json.loads(listing)["tests"]:
        reports = [word[len(REPORT_FLAG):] for word in test.get("command", []) if word.startswith(REPORT_FLAG)]
        entries[test["name"]] = pathlib.Path(reports[0]) if reports else None
    return entries


def executed(report):
    """Name of each ctest entry that ran -> "run" (it passed), "fail", "notrun" or "disabled"."""
    if not report.is_file():
        return {}
    return {case.get("name"): case.get("status") for case in ElementTree.parse(report).iter("testcase")}


def count_report(report):
    """(passed, failed, skipped) of one GoogleTest program; None where the report is missing or cut off."""
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return None
    failed = sum(case.find("failure") is not None for case in cases)
    skipped = sum(case.find("failure") is None and
                  (case.find("skipped") is not None or case.get("status") == "notrun") for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def count_entry(status, report):
    """(passed, failed, skipped, what went wrong) of one ctest entry."""
    if status == "disabled":
        return 0, 0, 1, None
    if report is None:
        if status == "run":
            return 1, 0, 0, None
        return (0, 0, 1, None) if status == "notrun" else (0, 1, 0, f"ctest says {status or 'nothing'}")
    counts = count_report(report)
    if counts is None:
        return 0, 1, 0, f"left no report ({report})"
    passed, failed, skipped = counts
    if passed + failed + skipped == 0:
        return 0, 1, 0, "ran no test"
    if status != "run" and failed == 0:
        return passed, 1, skipped, f"all its tests passed, but ctest says {status or 'nothing'}"
    return passed, failed, skipped, f"{failed} failed" if failed else None


def main():
    build, selection = sys.argv[1], sys.argv[2:]
    statuses = executed(pathlib.Path(build, "test-reports", "ctest.xml"))
    totals = [0, 0, 0]
    for name, report in sorted(planned(build, selection).items()):
        *counts, problem = count_entry(statuses.get(name), report)
        totals = [total + count for total, count in zip(totals, counts)]
        if problem:
            print(f"FAILED {name}: {problem}")
    print("{} passed, {} failed, {} skipped".format(*totals))
    sys.exit(1 if totals[1] or not totals[0] else 0)


if __name__ == "__main__":
    main()
