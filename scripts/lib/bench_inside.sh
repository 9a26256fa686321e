#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of the benchmark that runs on the kernel to be measured: one line
# "SCHEDULER<tab>ARGS<tab>SECONDS" a run of hackbench on stdout, the two
# schedulers in turn, so that drift of the machine hits both.
# Usage: bench_inside.sh RELEASE_DIR ROUNDS LOOPS
set -euo pipefail
release=$1 rounds=$2 loops=$3
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"

measure() {
    local args
    for args in "-p -g 4" "-g 2"; do
        # shellcheck disable=SC2086  # the words of args are hackbench's arguments
        printf '%s\t%s\t%s\n' "$1" "$args" "$(hackbench $args -l "$loops" | sed -n 's/^Time: //p')"
    done
}

hackbench -p -g 1 -l 10 >/dev/null # first use of pages and files, for neither
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    measure default
    sched_start "$release/scx_proxy"
    measure proxy
    [ "$(cat /sys/kernel/sched_ext/state)" = enabled ] || { echo "scx_proxy was thrown out" >&2; cat "$sched_log" >&2; exit 1; }
    sched_stop
done
