#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of scripts/stressors that runs in the guest. A line per run on stdout:
# SCHEDULER<tab>PROGRAM<tab>STATUS<tab>DETAIL; a line "begin" comes first. STATUS is
# ok, failed, timeout, absent, unloaded (the scheduler went), complaint (of the kernel).
# Usage: stressors_inside.sh RELEASE_DIR SECS PROGRAM...
# PROGRAM is stress-ng/NAME or one of the cases below.
set -euo pipefail
release=$1 secs=$2
shift 2
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"
# time that a program may take beyond SECS: emulated machines are slow to start and to end one
grace=180
log=$(mktemp)
# stress-ng writes where it stands
cd "$(mktemp -d)"
known=
if command -v stress-ng >/dev/null; then known=" $(stress-ng --stressors) "; fi
cpus=$(nproc)

command_of() {
    case $1 in
    stress-ng/*) echo stress-ng --quiet --oomable "--${1#*/}" "$((2 * cpus))" --timeout "$secs" ;;
    pi_stress) echo pi_stress --quiet --duration="$secs" --groups=2 ;;
    pip_stress) echo pip_stress ;;
    rt-migrate-test) echo rt-migrate-test --quiet --loops=20 ;;
    hackbench) echo hackbench --pipe --groups 8 --loops 100 ;;
    perf/futex-hash) echo perf bench futex hash --runtime "$secs" ;;
    perf/futex-lock-pi) echo perf bench futex lock-pi --runtime "$secs" ;;
    perf/futex-requeue) echo perf bench futex requeue ;;
    perf/futex-wake) echo perf bench futex wake ;;
    perf/sched-messaging) echo perf bench sched messaging --group 4 --nr_loops 50 ;;
    *) echo "there is no program $1" >&2 && exit 1 ;;
    esac
}

complaints() {
    # programs of users fault on their own account: "traps:"
    dmesg | grep -v 'traps:' | grep -E 'BUG:|WARNING:|Oops|general protection|soft lockup|hung_task|detected stalls|BPF scheduler "[^"]*" disabled \(' | grep -v 'unregistered from user space' || true
}

run() {
    local scheduler=$1 program=$2 status=ok detail='' before code=0
    local -a command
    if [[ $program == stress-ng/* && $known != *" ${program#*/} "* ]]; then
        printf '%s\t%s\tabsent\tthis stress-ng has no such stressor\n' "$scheduler" "$program"
        return
    fi
    read -ra command < <(command_of "$program")
    before=$(complaints | wc -l)
    timeout --kill-after=10 $((secs + grace)) "${command[@]}" >"$log" 2>&1 || code=$?
    if [ "$code" = 124 ]; then
        status=timeout detail="longer than $((secs + grace)) s"
    elif [ "$code" = 127 ]; then
        status=absent detail="not installed"
    elif [ "$code" != 0 ]; then
        status=failed detail="exit $code: $(tail -n 1 "$log" | tr '\t' ' ')"
    fi
    if [ "$(complaints | wc -l)" != "$before" ]; then
        status=complaint detail=$(complaints | tail -n 1 | tr '\t' ' ')
    fi
    if [ "$scheduler" != default ] && [ "$(cat /sys/kernel/sched_ext/state)" != enabled ]; then
        status=unloaded detail=$(tail -n 1 "$sched_log" | tr '\t' ' ')
        sched_pid=''
        sched_start "$release/scx_proxy" >&2 || detail="$detail, and does not load again"
    fi
    printf '%s\t%s\t%s\t%s\n' "$scheduler" "$program" "$status" "$detail"
}

echo begin
for program in "$@"; do run default "$program"; done
sched_start "$release/scx_proxy" >&2
for program in "$@"; do run scx_proxy "$program"; done
sched_stop
