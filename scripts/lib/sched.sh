# SPDX-License-Identifier: GPL-2.0-only
#
# Start and stop scx_proxy from a script, in a guest or on a host.
# Usage: . sched.sh; sched_start BINARY [FLAG...]; ...; sched_stop

sched_pid=
sched_log=$(mktemp)

sched_start() {
    "$@" >"$sched_log" 2>&1 &
    sched_pid=$!
    # verification takes long under emulation: wait for the state, not for a time
    for _ in $(seq 600); do
        [ "$(cat /sys/kernel/sched_ext/state)" = enabled ] && return 0
        kill -0 "$sched_pid" 2>/dev/null || break
        sleep 0.2
    done
    cat "$sched_log" >&2
    echo "scx_proxy did not load" >&2
    return 1
}

sched_stop() {
    [ -n "$sched_pid" ] || return 0
    kill -INT "$sched_pid" 2>/dev/null
    if ! wait "$sched_pid"; then
        cat "$sched_log" >&2
        echo "scx_proxy did not end well" >&2
        sched_pid=
        return 1
    fi
    sched_pid=
}

trap 'sched_stop; rm -f "$sched_log"' EXIT
trap 'exit 130' INT TERM
