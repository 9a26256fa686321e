#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Inside a guest whose init is systemd (lib/packages.py boots it): the package from its installation to its
# end, and what systemd makes of each way in which the scheduler can end. Prints a line for each check.

unit=scx_proxy.service
socket=/run/scx/root/stats

ok() { echo "ok - $1"; }
not_ok() {
    echo "not ok - $1"
    systemctl show -p ActiveState,SubState,Result,ExecMainStatus,NRestarts $unit | sed 's/^/info - /'
    journalctl -u $unit -n 8 -o cat --no-pager | sed 's/^/info - /'
}
# check NAME COMMAND...
check() {
    name=$1
    shift
    if "$@"; then ok "$name"; else not_ok "$name"; fi
}

state() { cat /sys/kernel/sched_ext/state; }
scheduling() { [ "$(state)" = enabled ] && grep -q '^proxy' /sys/kernel/sched_ext/root/ops; }
back_to_default() { [ "$(state)" = disabled ] && [ ! -e $socket ]; }
shown() { systemctl show -P "$1" $unit; }
# within SECS COMMAND...: it becomes true
within() {
    left=$1
    shift
    while ! "$@"; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 1
    done
}
failed() { [ "$(shown ActiveState)" = failed ]; }
# another process than PID runs it, and the kernel has it
restarted() { [ "$(shown MainPID)" != "$1" ] && [ "$(shown ActiveState)" = active ] && scheduling; }
logged() { journalctl -u $unit -o cat --no-pager | grep -qF -- "$1"; }
of_init() { [ "$(cat /proc/1/comm)" = systemd ]; }
# what a machine has of the package
left_over() {
    find / -xdev \( -path /proc -o -path /sys -o -path /var/lib/dpkg -o -path /var/log -o -path /run/log \
        -o -path /var/cache/man \) -prune -o \( -name '*scx_proxy*' -o -name 'scx-proxy*' -o -path '/run/scx*' \) -print
}
none_left() { [ -z "$(left_over)" ]; }

installs() {
    check "systemd is init" of_init
    check "dpkg -i" dpkg -i /package.deb
    rm /package.deb
    check "installation starts nothing" [ "$(shown ActiveState) $(state)" = "inactive disabled" ]
    check "installation enables nothing" [ "$(systemctl is-enabled $unit)" = disabled ]
    check "doctor: can be loaded" sh -c 'scx_proxy doctor >/dev/null'
}

starts_and_stops() {
    check "start returns when it schedules" timeout 200 systemctl start $unit
    check "it schedules" scheduling
    check "the hardened unit sees names and events" logged "is scheduling"
    journalctl -u $unit -o cat --no-pager | sed 's/^/info - /'
    echo 'observe = true' >/etc/scx_proxy.toml
    check "reload" systemctl reload $unit
    check "reload: observe is taken" within 20 logged "configuration reloaded: observe"
    echo 'observe = maybe' >/etc/scx_proxy.toml
    systemctl reload $unit
    check "reload of a wrong file says so" within 20 logged "all stays as it was: /etc/scx_proxy.toml"
    check "and it goes on" scheduling
    check "journal: an error has its priority" [ -n "$(journalctl -u $unit -p err -o cat --no-pager)" ]
    check "journal: the version is a field" [ -n "$(journalctl -u $unit SCX_PROXY_VERSION="$(scx_proxy --version | cut -d' ' -f2 | cut -d- -f1)" -o cat --no-pager)" ]
    check "stop" systemctl stop $unit
    check "stopped: the default scheduler is back, no socket" back_to_default
    check "stopped: exit code 0" [ "$(shown Result)" = success ]
}

refuses() {
    # the file is still wrong
    systemctl start $unit && not_ok "a wrong configuration is refused"
    check "refused: exit code 1, no second try" [ "$(shown ExecMainStatus) $(shown NRestarts) $(shown ActiveState)" = "1 0 failed" ]
    : >/etc/scx_proxy.toml
}

is_killed() {
    systemctl reset-failed $unit
    systemctl start $unit
    # not SEGV: Rust's handler returns to what it takes for the faulting instruction
    for signal in KILL ABRT; do
        pid=$(shown MainPID)
        kill -$signal "$pid"
        check "$signal: it is started again" within 90 restarted "$pid"
    done
    kill -KILL "$(shown MainPID)"
    check "the third time within ten minutes it stays out" within 60 failed
    check "and the default scheduler is back" within 30 [ "$(state)" = disabled ]
    systemctl reset-failed $unit
}

hangs() {
    mkdir -p /run/systemd/system/$unit.d
    printf '[Service]\nWatchdogSec=15\nTimeoutAbortSec=5\n' >/run/systemd/system/$unit.d/test.conf
    systemctl daemon-reload
    systemctl start $unit
    pid=$(shown MainPID)
    kill -STOP "$pid"
    check "hung: systemd ends it and starts it again" within 120 restarted "$pid"
    check "hung: by its watchdog" logged "Watchdog timeout"
    rm -r /run/systemd/system/$unit.d
    systemctl daemon-reload
}

is_removed() {
    systemctl enable $unit 2>/dev/null
    check "removed while it runs" dpkg -r scx-proxy
    check "removed: the default scheduler is back" back_to_default
    check "removed: the configuration stays" [ -e /etc/scx_proxy.toml ]
    check "purge" dpkg -P scx-proxy
    left_over | sed 's/^/info - left: /'
    check "purged: nothing is left" none_left
}

# a line of its own after what the boot said
echo
# each part from a clean start
installs
starts_and_stops
refuses
is_killed
hangs
is_removed
echo "all done"
sync
systemctl poweroff --force --force
