#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What each BPF program costs per run, in ns of the guest's clock. With
# scripts/vm --virtual-time, which counts instructions and nothing else, half of that is
# the number of instructions:
#   scripts/vm --virtual-time 7.3-generic -- bash scripts/lib/costs_inside.sh
# Cgroups are made, weighed, entered, left and removed. Locks are contended by `inversion` and sysbench, mutexes of pipes by hackbench.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
release=target/release
. scripts/lib/sched.sh

sysctl -q kernel.bpf_stats_enabled=1
locks=i_rwsem,mmap_lock,pi_mutex,pthread
if modprobe -q binder_linux && "$release/inversion" --list | grep -q '^  binder '; then
    locks+=,binder
fi
sched_start "$release/scx_proxy" -v
"$release/inversion" --lock "$locks" --topology same,cross --trials 2 --critical-ms 10 >/dev/null
hackbench -p -g 1 -l 50 >/dev/null
sysbench mutex --threads=8 --mutex-num=1 --mutex-locks=100000 --mutex-loops=100 run >/dev/null
cgroups=$(findmnt --noheadings --types cgroup2 --output TARGET | head -n 1)
echo +cpu >"$cgroups/cgroup.subtree_control"
for nr in $(seq 200); do
    group=$cgroups/costs.$nr
    mkdir "$group"
    echo 50 >"$group/cpu.weight"
    bash -c "echo \$\$ >$group/cgroup.procs; echo \$\$ >$cgroups/cgroup.procs"
    rmdir "$group"
done
kill -INT "$sched_pid"
wait "$sched_pid"
sched_pid=
sed -n 's/.*\(proxy_[a-z_]*: [0-9]* runs, .*\)/\1/p' "$sched_log"
