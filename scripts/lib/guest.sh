# SPDX-License-Identifier: GPL-2.0-only
#
# Runs inside the guest, as root, before and after the command. The host writes
# $1/job.sh and reads $1/{started,out,err,rc}; $1 is the only folder that both
# sides write. The guest's root is the host's, read-only or under overlays.
#
# Usage: sh guest.sh RUN_DIR

run=$1
. "$run/job.sh"         # sets config, cwd, PATH, HOME and defines job()

mounted() { grep -q " $1 " /proc/mounts; }

# The kernel's configuration, where a Debian machine has it: there is no /proc/config.gz, of most kernels.
if [ -n "$config" ]; then
    mount -t tmpfs -o mode=0755 tmpfs /boot && cp "$config" "/boot/config-$(uname -r)" ||
        echo "guest: /boot/config-$(uname -r) cannot be made" >&2
fi

mounted /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
mounted /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
mounted /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup
mounted /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf

ulimit -c 0
ulimit -n 65536
ulimit -l unlimited
ulimit -s 8192

# Everything but debug messages reaches the console, which is the kernel log file.
dmesg -n 8
echo on >/proc/sys/kernel/printk_devkmsg
ip link set lo up 2>/dev/null

cd "$cwd" || { echo "guest: the folder $cwd is not visible in here" >&2; cwd=; }

[ -z "$SCX_PROXY_VM_EVEN_US" ] || /usr/bin/python3 "$run/even_clock.py" "$SCX_PROXY_VM_EVEN_US" 2>>"$run/err"

: >"$run/started"
if [ -n "$cwd" ]; then
    ( job ) </dev/null >>"$run/out" 2>>"$run/err"
    rc=$?
else
    echo "vm: the current folder is hidden inside the guest; try from another one" >>"$run/err"
    rc=125
fi

# By rename, so that the host never reads half of it.
echo "$rc" >"$run/rc.new" && mv "$run/rc.new" "$run/rc"
