#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of scripts/place that runs on the kernel to be measured; turns.sh says what it prints.
# Usage: place_inside.sh RELEASE_DIR ROUNDS SECS_SCALE CASE,... SCHEDULER...
set -euo pipefail
release=$1 rounds=$2 scale=$3 cases=${4//,/ }
shift 4
. "$(dirname "${BASH_SOURCE[0]}")/turns.sh"

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

hackbench -p -g 1 -l 10 >/dev/null # first use of pages and files, for none of them
"$release/schedload" spin --spec 1 --secs 0.1 --settle 0.1 >/dev/null
turns "$rounds" "$cases" "$@"
