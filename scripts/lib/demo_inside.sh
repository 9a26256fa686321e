#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of the demo that runs on the kernel to be measured, guest or host.
# scx_proxy comes first: loading it is what an emulated guest sometimes dies of. Then each row is shown as
# soon as the default scheduler has had it, too. A kernel with proxy execution of its own is measured as it is,
# after the others: WHAT is pe then, and otherwise both.
# Usage: demo_inside.sh RELEASE_DIR OUT_DIR WHAT TRIALS CRITICAL_MS LOCKS:TOPOLOGIES[:MORE ARGUMENTS]...
set -euo pipefail
release=$1 out=$2 what=$3 trials=$4 critical_ms=$5
shift 5
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"

measure() {
    local scheduler=$1 label=$2 scenario locks topologies more nr=0
    shift 2
    echo "kernel $(uname -r), $(nproc) CPUs: $label" >&2
    for scenario in "$@"; do
        nr=$((nr + 1))
        IFS=: read -r locks topologies more <<<"$scenario"
        # shellcheck disable=SC2086 # more arguments, split at blanks
        "$release/inversion" --lock "$locks" --topology "$topologies" $more \
            --trials "$trials" --critical-ms "$critical_ms" --label "$label" --json "$out/$scheduler.$nr.json" >/dev/null
        case $scheduler in
        default) "$release/inversion" --compare "$out"/{default,proxy}."$nr.json" >&2 ;;
        pe) "$release/inversion" --compare "$out"/{default,proxy,pe}."$nr.json" >&2 ;;
        esac
    done
}

if [ "$what" = pe ]; then
    measure pe "in the kernel" "$@"
    exit
fi
echo "loading scx_proxy" >&2
sched_start "$release/scx_proxy"
measure proxy scx_proxy "$@"
[ "$(cat /sys/kernel/sched_ext/state)" = enabled ] || { echo "scx_proxy was ejected" >&2; cat "$sched_log" >&2; exit 1; }
sched_stop
measure default "kernel default" "$@"
