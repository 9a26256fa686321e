#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of the benchmark that runs on the kernel to be measured: one line
# "SCHEDULER<tab>WORK<tab>SECONDS" a run on stdout, the schedulers in turn, so
# that drift of the machine hits all.
# Usage: bench_inside.sh RELEASE_DIR ROUNDS LOOPS
set -euo pipefail
release=$1 rounds=$2 loops=$3
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"

measure() {
    local args
    for args in "-p -g 4" "-g 2"; do
        # shellcheck disable=SC2086  # the words of args are hackbench's arguments
        printf '%s\thackbench %s\t%s\n' "$1" "$args" "$(hackbench $args -l "$loops" | sed -n 's/^Time: //p')"
    done
    measure_mutex "$1"
    measure_alone "$1"
}

# as many threads as CPUs, which compute and wait for nobody
measure_alone() {
    printf '%s\tsysbench cpu\t%s\n' "$1" "$(sysbench cpu --threads=4 --cpu-max-prime=2000 \
        --events=$((loops * 200)) --time=0 run | sed -n 's/^ *total time: *\([0-9.]*\)s$/\1/p')"
}

# 8 threads and one pthread mutex, held shortly: it is contended all the time, and nothing is inverted
measure_mutex() {
    printf '%s\tsysbench mutex\t%s\n' "$1" "$(sysbench mutex --threads=8 --mutex-num=1 \
        --mutex-locks=$((loops * 5000)) --mutex-loops=100 run | sed -n 's/^ *total time: *\([0-9.]*\)s$/\1/p')"
}

with() {
    local name=$1 measure=$2
    shift 2
    sched_start "$release/scx_proxy" "$@"
    "$measure" "$name"
    [ "$(cat /sys/kernel/sched_ext/state)" = enabled ] || { echo "scx_proxy was thrown out" >&2; cat "$sched_log" >&2; exit 1; }
    sched_stop
}

hackbench -p -g 1 -l 10 >/dev/null # first use of pages and files, for neither
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    measure default
    with proxy measure
    with --observe measure --observe
    with "--locks none --no-agent" measure --observe --locks none --no-agent
    with "--locks -pthread" measure_mutex --locks -pthread
done
