#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The part of a campaign that runs in the guest: the trials under scx_proxy, recorded on request. On this clock who
# watches takes CPU time from the trials.
# Usage: campaign_inside.sh RELEASE_DIR OUT_DIR RECORDED INVERSION-ARGUMENTS...
set -euo pipefail
release=$1 out=$2 recorded=$3
shift 3
. "$(dirname "${BASH_SOURCE[0]}")/sched.sh"

echo "loading scx_proxy" >&2
sched_start "$release/scx_proxy"
if [ "$recorded" = yes ]; then
	"$release/scx_proxy" record --force "$out/recording" >&2 &
	record=$!
	sleep 1
fi
"$release/inversion" --json "$out/report.json" "$@" >&2
if [ "$recorded" = yes ]; then
	kill -INT "$record"
	wait "$record"
fi
[ "$(cat /sys/kernel/sched_ext/state)" = enabled ] || { echo "scx_proxy was ejected" >&2; cat "$sched_log" >&2; exit 1; }
sched_stop
