#!/bin/bash
# tools/test_summary.py on made-up tests: what crashed, left no report or says two things counts as failed.
# usage: test_summary_test.sh CTEST PYTHON SUMMARY
set -euo pipefail
ctest=$1 python=$2 summary=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$(dirname "$ctest"):$PATH  # the summary asks ctest what was planned

# gtest NAME 'XML of its test cases' EXIT_STATUS: a program that writes a report as GoogleTest does.
gtest() {
  local report="$work/test-reports/$1.xml"
  cat >"$1.sh" <<SCRIPT
[ -z '$2' ] || { mkdir -p test-reports; printf '%s' '<testsuites><testsuite>$2</testsuite></testsuites>' >"$report"; }
exit $3
SCRIPT
  echo "add_test($1 sh $work/$1.sh --gtest_output=xml:$report)" >>CTestTestfile.cmake
}
plain() { echo "add_test($1 sh -c \"exit $2\")" >>CTestTestfile.cmake; }
expect() {
  "$ctest" --output-junit test-reports/ctest.xml >log 2>&1 || true
  local status=0 line
  line=$("$python" "$summary" "$work" | tee said | tail -1) || status=$?
  [ "$line" = "$1" ] && [ "$status" = "$2" ] || { echo "got '$line', status $status; want '$1', $2"; cat said log; exit 1; }
  rm -rf CTestTestfile.cmake test-reports
}

pass='<testcase name="a" status="run"/>'
skip='<testcase name="b" status="run"><skipped message="no GPU"/></testcase>'
disabled='<testcase name="c" status="notrun"/>'
fail='<testcase name="d" status="run"><failure message="no"/></testcase>'

plain good 0; gtest three "$pass$pass$skip$disabled" 0; expect "3 passed, 0 failed, 2 skipped" 0
plain bad 1; plain good 0;                              expect "1 passed, 1 failed, 0 skipped" 1
gtest fails "$pass$fail$fail" 1;                        expect "1 passed, 2 failed, 0 skipped" 1
gtest crashed_early "" 139; plain good 0;               expect "1 passed, 1 failed, 0 skipped" 1
gtest silent "" 0;                                      expect "0 passed, 1 failed, 0 skipped" 1
gtest crashed_at_exit "$pass" 139;                      expect "1 passed, 1 failed, 0 skipped" 1
gtest empty " " 0;                                      expect "0 passed, 1 failed, 0 skipped" 1
echo "" >CTestTestfile.cmake;                           expect "0 passed, 0 failed, 0 skipped" 1

# A report cut off in the middle, as a full disk leaves it.
gtest cut "$pass" 0
sed -i 's#</testsuite>##' cut.sh;                       expect "0 passed, 1 failed, 0 skipped" 1
