#!/bin/bash
# The interface hash follows what the compiler reads: not comments, blank lines or the order of files.
# usage: interface_hash_test.sh CMAKE SCRIPT
set -euo pipefail
cmake=$1 script=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

hash_of() {
  rm -f out.h
  "$cmake" -DHEADERS="$1" -DOUTPUT=out.h -P "$script" >&2
  sed -n 's/#define ATTNMUX_INTERFACE_HASH "\([0-9a-f]\{32\}\)"/\1/p' out.h
}

printf 'struct A {\n  int a; int b[4];\n};\n' >a.h
printf 'void f(A a);\n' >b.h
first=$(hash_of "a.h;b.h")
[ ${#first} = 32 ] || { echo "no hash: '$first'"; exit 1; }

same() { [ "$(hash_of "a.h;b.h")" = "$first" ] || { echo "$1 changed the hash"; exit 1; }; }
differs() { [ "$(hash_of "a.h;b.h")" != "$first" ] || { echo "$1 did not change the hash"; exit 1; }; }

[ "$(hash_of "b.h;a.h")" = "$first" ] || { echo "the order of files changed the hash"; exit 1; }
printf '// What A is; [x] "quoted" # and attnmux/*.h\n/* block ** of\n   two lines **/\n\nstruct A {  \n  int a; int b[4]; // why\n\n};\n' >a.h
same "a comment"
printf 'struct A {\r\n  int a; int b[4];\r\n};\r\n' >a.h
same "a line end"
printf 'struct A {\n  int a; int b[5];\n};\n' >a.h
differs "an array's length"
printf 'struct A {\n  int b[4]; int a;\n};\n' >a.h
differs "the order of members"

# Unchanged content leaves the file alone, so that nothing is compiled again.
hash_of "a.h;b.h" >/dev/null
touch -d 2001-01-01 out.h
"$cmake" -DHEADERS="a.h;b.h" -DOUTPUT=out.h -P "$script"
[ "$(date -r out.h +%Y)" = 2001 ] || { echo "an unchanged header was written again"; exit 1; }
