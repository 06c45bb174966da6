#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# check.sh: one exhaustive run of Spin over a model, and whether it found what it should have found.
#
#   check.sh MODEL holds|holds_and_ends|fails [-DNAME[=VALUE]]...
#
# holds            no assertion can be violated, in any order of events; every process but the endless
#                  ones was seen to come to its end.
# holds_and_ends   and there is no cycle.
# fails            some assertion is violated: for mutants, to show that the model can see the error.
# Exit status: 0 as expected, 1 not, 77 Spin is not installed (ctest: skipped).
set -euo pipefail

memory_limit_mib=4000

fail() {
    printf 'check.sh: %s: %s\n' "$what" "$1" >&2
    exit 1
}

if [ $# -lt 2 ]; then
    printf 'usage: check.sh MODEL holds|holds_and_ends|fails [-DNAME[=VALUE]]...\n' >&2
    exit 2
fi
model=$1 expected=$2
shift 2
what="$model $*"
if ! command -v spin >/dev/null; then
    printf 'skipped: spin is not installed; as root: apt-get install spin\n'
    exit 77
fi

case $expected in
holds) compile=(-O2 -DSAFETY) run=() ;;
fails) compile=(-O1 -DSAFETY) run=() ;;
holds_and_ends) compile=(-O2 -DNP) run=(-l) ;;
*) fail "expected result is '$expected'; must be holds, holds_and_ends or fails" ;;
esac

source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work_dir=$(mktemp -d)
trap 'rm -rf "$work_dir"' EXIT
cp "$source_dir"/*.pml "$work_dir"
cd "$work_dir"

spin -a "$@" "$model.pml" >spin.log 2>&1 || { cat spin.log >&2; fail "spin -a failed"; }
"${CC:-cc}" -w "${compile[@]}" "-DMEMLIM=$memory_limit_mib" -o pan pan.c
./pan "${run[@]}" -m1000000 >pan.log 2>&1 || true
grep -vE '^Depth=' pan.log

grep -q '^State-vector' pan.log || fail "the search did not run"
errors=$(sed -n 's/^State-vector.*errors: //p' pan.log)
if [ "$expected" = fails ]; then
    [ "$errors" -gt 0 ] || fail "no error was found in a mutant: the model is blind to it"
    grep -q '^pan:.*assertion violated' pan.log || fail "there is an error, but no violated assertion"
    exit 0
fi
[ "$errors" -eq 0 ] || fail "an error was found; to see how it comes about:
    spin -a $* $model.pml && cc ${compile[*]} -o pan pan.c && ./pan ${run[*]} ; spin -t -p -g $* $model.pml"
! grep -qE 'Search not completed|max search depth too small' pan.log || fail "the search was cut short"
# Nothing was checked if nothing was reached.
for process in sender judge; do
    grep -A1 "^unreached in proctype $process" pan.log | grep -qE '\(0 of [0-9]+ states\)' ||
        fail "process $process has steps that were never reached"
done
