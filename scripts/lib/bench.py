# SPDX-License-Identifier: GPL-2.0-only
"""The price of proxying where nothing is inverted: hackbench, sysbench, ratios of medians.

A benchmark, not a test: nothing here passes or fails.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
from pathlib import Path

import kernels
import project
import vmrun


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Runs `hackbench -p -g 4` (pipes: thousands of short waits for a mutex a second) and `hackbench "
        "-g 2` (sockets) and `sysbench mutex` (threads at one pthread mutex; also with --locks -pthread) and `sysbench cpu` (threads that wait for nobody) with the kernel's "
        "default scheduler and with scx_proxy in turn (donating; --observe; and with neither locks nor agent, which is the same scheduler without tracking), in one guest, and prints ratios of medians.",
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES", help="Debian kernel to boot (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each (default %(default)s)")
    parser.add_argument("--loops", type=int, default=100, metavar="N", help="messages a sender sends to each receiver (default %(default)s, as hackbench has it)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every time measured to FILE")
    args = parser.parse_args(argv)
    if args.rounds < 1 or args.loops < 1:
        parser.error("--rounds and --loops: at least 1")
    return args


def main(argv):
    args = parse(argv)
    kernel = kernels.ensure(args.kernel)
    project.build()
    script = project.ROOT / "scripts" / "lib" / "bench_inside.sh"
    command = ["bash", str(script), str(project.RELEASE), str(args.rounds), str(args.loops)]
    out = io.BytesIO()
    outcome = project.run_guest(vmrun.Job(cwd=str(project.ROOT), kernel=kernel, command=command, timeout_secs=3600, stdout=out))
    if outcome.status:
        raise project.Failure(f"the measurement failed with status {outcome.status}")
    # a guest that was run again printed its first run, too: the last rounds count
    times = {}
    for line in out.getvalue().decode().splitlines():
        scheduler, work, secs = line.split("\t")
        times.setdefault(work, {}).setdefault(scheduler, []).append(float(secs))
    print(f"kernel {outcome.version}, 4 CPUs ({outcome.accel}), medians of {args.rounds}, in seconds of guest time")
    print(f"{'':20} {'scheduler':>24} {'seconds':>9} {'ratio':>6}")
    for work, by in times.items():
        medians = {name: statistics.median(secs[-args.rounds :]) for name, secs in by.items()}
        for name, secs in medians.items():
            shown = {"default": "default", "proxy": "scx_proxy"}.get(name, name)
            print(f"{work:20} {shown:>24} {secs:9.2f} {secs / medians['default']:6.2f}")
    for warning in outcome.warnings:
        print(f"kernel log: {warning}")
    if args.json:
        args.json.write_text(json.dumps({"kernel": outcome.version, "accel": outcome.accel, "seconds": times}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
