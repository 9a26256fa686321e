#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of scripts/bench that runs on the kernel to be measured; turns.sh says what it prints.
# Usage: bench_inside.sh RELEASE_DIR ROUNDS SECS_SCALE WORK,... SCHEDULER...
set -euo pipefail
release=$1 rounds=$2 scale=$3 works=${4//,/ }
shift 4
here=$(dirname "${BASH_SOURCE[0]}")
. "$here/turns.sh"

run_case() { /usr/bin/python3 -B "$here/bench_works.py" "$release" "$scale" "$1"; }

hackbench -p -g 1 -l 10 >/dev/null # first use of pages and files, for none of them
"$release/schedload" spin --spec 1 --secs 0.1 --settle 0.1 >/dev/null
turns "$rounds" "$works" "$@"
