#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of scripts/place that runs on the kernel to be measured: one line
# "SCHEDULER<tab>CASE<tab>JSON" a run on stdout, the schedulers in turn, so that
# drift of the machine hits all. JSON is {"failed": WHY} where a scheduler did
# not load, or was thrown out. A line "begin" comes first.
# Usage: place_inside.sh RELEASE_DIR ROUNDS SECS_SCALE CASE,... SCHEDULER...
# A SCHEDULER is NAME=PROGRAM; the kernel's default is default=.
set -euo pipefail
release=$1 rounds=$2 scale=$3 cases=${4//,/ }
shift 4
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"
err=$(mktemp)

# SECS [AT_LEAST]: so many, scaled
scaled() { awk -v n="$1" -v scale="$scale" -v least="${2:-0.2}" 'BEGIN { n *= scale; print n < least ? least : n }'; }

schedload() {
    local load=$1 secs=$2
    shift 2
    "$release/schedload" "$load" --secs "$(scaled "$secs")" --settle "$(scaled 1)" "$@"
}

# messages instead of seconds are scaled
hackbench8() {
    hackbench -p -g 8 -l "$(scaled 50 1 | cut -d. -f1)" | sed -n 's/^Time: \(.*\)/{"seconds": \1}/p'
}

run_case() {
    case $1 in
    sync) schedload sync 10 ;;
    pinned) schedload sleepers 10 --count 3 --sleep-us 1000 --cpus 1-3 --beside 1500x19@0 ;;
    fair5) schedload spin 20 --spec 5@0-3 ;;
    fair6) schedload spin 20 --spec 6@0-3 ;;
    fair3on2) schedload spin 20 --spec 3@0-1 ;;
    pipe) schedload pipe 5 ;;
    sleepers9) schedload sleepers 5 --count 9 --sleep-us 1000 --anywhere ;;
    hackbench8) hackbench8 ;;
    oneCPU) schedload pipe 5 --cpus 0 ;;
    *) echo "there is no case $1" >&2 && exit 1 ;;
    esac
}

loaded() { [ "$(cat /sys/kernel/sched_ext/state)" = enabled ]; }

failed() {
    printf '%s\t%s\t{"failed": "%s"}\n' "$1" "$2" "$3"
    echo "$1, $2: $3" >&2
}

# whatever the scheduler says to that: the next one is measured nevertheless
stop() { sched_stop || true; }

measure() {
    local name=$1 program=$2 case report
    for case in $cases; do
        if [ -n "$program" ] && [ -z "$sched_pid" ] && ! sched_start "$program" 2>"$err"; then
            tail -n 20 "$err" >&2
            failed "$name" "$case" "it does not load"
            stop 2>/dev/null
            return
        fi
        if ! report=$(run_case "$case"); then
            failed "$name" "$case" "the load failed"
        elif [ -z "$program" ] || loaded; then
            printf '%s\t%s\t%s\n' "$name" "$case" "$report"
            continue
        else
            failed "$name" "$case" "it was thrown out"
            tail -n 20 "$sched_log" >&2
        fi
        # a new one for the next case
        stop 2>/dev/null
    done
    stop
}

echo begin
hackbench -p -g 1 -l 10 >/dev/null # first use of pages and files, for none of them
"$release/schedload" spin --spec 1 --secs 0.1 --settle 0.1 >/dev/null
for round in $(seq "$rounds"); do
    for scheduler in "$@"; do
        echo "round $round of $rounds: ${scheduler%%=*}" >&2
        measure "${scheduler%%=*}" "${scheduler#*=}"
    done
done
