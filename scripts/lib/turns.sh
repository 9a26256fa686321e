# SPDX-License-Identifier: GPL-2.0-only
#
# Measures schedulers in turn, so that drift of the machine hits all: one line
# "SCHEDULER<tab>CASE<tab>JSON" a run on stdout. JSON is {"failed": WHY} where a scheduler
# did not load, or was thrown out. A line "begin" comes first.
# Usage: . turns.sh; run_case() { ... }; turns ROUNDS CASES SCHEDULER...
# A SCHEDULER is NAME=PROGRAM, with a tab before each argument; the kernel's default is default=.

. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"
turns_err=$(mktemp)

loaded() { [ "$(cat /sys/kernel/sched_ext/state)" = enabled ]; }

failed() {
    printf '%s\t%s\t{"failed": "%s"}\n' "$1" "$2" "$3"
    echo "$1, $2: $3" >&2
}

# whatever the scheduler says to that: the next one is measured nevertheless
stop() { sched_stop || true; }

measure() {
    local name=$1 cases=$2 case report
    local -a program
    IFS=$'\t' read -ra program <<<"$3"
    for case in $cases; do
        if ((${#program[@]})) && [ -z "$sched_pid" ] && ! sched_start "${program[@]}" 2>"$turns_err"; then
            tail -n 20 "$turns_err" >&2
            failed "$name" "$case" "it does not load"
            stop 2>/dev/null
            return
        fi
        if ! report=$(run_case "$case"); then
            failed "$name" "$case" "the load failed"
        elif ((!${#program[@]})) || loaded; then
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

turns() {
    local rounds=$1 cases=$2 round scheduler
    shift 2
    echo begin
    for round in $(seq "$rounds"); do
        for scheduler in "$@"; do
            echo "round $round of $rounds: ${scheduler%%=*}" >&2
            measure "${scheduler%%=*}" "$cases" "${scheduler#*=}"
        done
    done
}
