#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Makes the CPUs of a guest in virtual time go side by side, from its end until the child that it leaves is killed.

On a clock that counts instructions QEMU runs one CPU after the other, each until the next timer of any of them, and
often the same one again: while others are busy a CPU stands still for 100 ms and more, and whatever ran there is charged
for it. A clock event of perf on each CPU makes these turns short. It interrupts, and wakes nobody.

usage: even_clock.py USECS
"""

import ctypes
import os
import signal
import struct
import sys

SYS_PERF_EVENT_OPEN = 298  # x86-64
PERF_TYPE_SOFTWARE = 1
PERF_COUNT_SW_CPU_CLOCK = 0
ATTR_BYTES = 64  # PERF_ATTR_SIZE_VER0: type, size, config, sample period, and no flags


def main():
    period_ns = int(sys.argv[1]) * 1000
    attr = struct.pack("=IIQQ", PERF_TYPE_SOFTWARE, ATTR_BYTES, PERF_COUNT_SW_CPU_CLOCK, period_ns)
    buffer = ctypes.create_string_buffer(attr, ATTR_BYTES)
    libc = ctypes.CDLL(None, use_errno=True)
    for cpu in sorted(os.sched_getaffinity(0)):
        if libc.syscall(SYS_PERF_EVENT_OPEN, buffer, -1, cpu, -1, 0) < 0:
            error = ctypes.get_errno()
            sys.exit(f"even_clock.py: perf_event_open() on CPU {cpu}: {os.strerror(error)}")
    if os.fork() == 0:
        signal.pause()


if __name__ == "__main__":
    main()
