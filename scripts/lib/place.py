# SPDX-License-Identifier: GPL-2.0-only
"""Where and when tasks run in ordinary loads: schedulers in turn, in one guest, medians and ratios.

A benchmark, not a test: nothing here passes or fails.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import kernels
import project
import vm_cli
import vmrun
from bench_table import shown

DEFAULT = "default"
OWN = "scx_proxy"


def late(report):
    micros = report["sleepers"]["lateness"]
    return {
        "lateness mean, ms": micros["mean_us"] / 1e3,
        "lateness p99, ms": micros["p99_us"] / 1e3,
        "lateness max, ms": micros["max_us"] / 1e3,
    }


def rate(report):
    return {"round trips/s": report["pipe"]["rounds_per_sec"]}


def standstill(groups):
    return {"spinner stands still, ms": max(group["standstill_max_us"] for group in groups) / 1e3}


def fair(report):
    share = report["groups"][0]["share"]
    return {"least share, %": share["min"] * 100, "largest share, %": share["max"] * 100} | standstill(report["groups"])


def sync(report):
    return standstill(report["beside"]) | late(report) | rate(report)


# name: CPUs that it takes, what it is, the metrics of a report
CASES = {
    "sync": (2, "schedload sync", sync),
    "pinned": (4, "a 1 ms sleeper each on CPUs 1-3, 1,500 spinners of nice 19 on CPU 0", late),
    "fair5": (4, "5 spinners on 4 CPUs", fair),
    "fair6": (4, "6 spinners on 4 CPUs", fair),
    "fair3on2": (2, "3 spinners on 2 CPUs", fair),
    "pipe": (1, "ping-pong of a pair that may run anywhere, on an idle machine", rate),
    "sleepers9": (1, "nine tasks that sleep 1 ms, anywhere", late),
    "hackbench8": (1, "hackbench -p -g 8 -l 50", lambda report: {"seconds": report["seconds"]}),
    "oneCPU": (1, "ping-pong of a pair on CPU 0", rate),
}


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/place",
        description="Runs ordinary loads with the kernel's default scheduler, with scx_proxy and with each --peer in turn, in one guest, "
        "and prints medians, what the runs spread over, and the ratio to the default.",
        epilog="cases:\n" + "".join(f"  {name:11} {about}\n" for name, (_, about, _) in CASES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES", help="Debian kernel to boot (default %(default)s)")
    parser.add_argument("--cpus", type=vm_cli.cpus, default=4, metavar="N", help="virtual CPUs (default %(default)s)")
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="of the guest (default %(default)s)")
    parser.add_argument("--virtual-time", action="store_true", help="emulate, on a clock that counts instructions (2 ns each) and nothing else; slow")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each (default %(default)s)")
    parser.add_argument("--secs-scale", type=vm_cli.positive, default=1.0, metavar="F", help="make all runs so much longer, or shorter (default %(default)s)")
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help="only this case; may be repeated")
    parser.add_argument("--peer", action="append", default=[], type=Path, metavar="PATH", help="another sched_ext scheduler, run without arguments; may be repeated")
    parser.add_argument("--default-only", action="store_true", help="no other scheduler than the kernel's default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every report to FILE")
    args = parser.parse_args(argv)
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    for peer in args.peer:
        if not os.access(peer, os.X_OK) or peer.is_dir():
            parser.error(f"--peer {peer}: no such program")
        if peer.resolve().is_relative_to("/tmp") or peer.resolve().is_relative_to("/run"):
            parser.error(f"--peer {peer}: /tmp and /run are not visible in the guest")
    args.cases = [name for name in CASES if not args.only or name in args.only]
    for name in [name for name in args.cases if CASES[name][0] > args.cpus]:
        project.say(f"place: {name} takes {CASES[name][0]} CPUs, and is left out")
        args.cases.remove(name)
    if not args.cases:
        parser.error("no case is left")
    return args


def schedulers(args):
    """Each by its name, which is what it is called in the table; another one of that name has a number."""
    chosen = {DEFAULT: ""}
    if not args.default_only:
        chosen[OWN] = str(project.RELEASE / OWN)
        for peer in args.peer:
            path = peer.resolve()
            name, number = path.name, 1
            while name in chosen:
                number += 1
                name = f"{path.name}:{number}"
            chosen[name] = str(path)
    return chosen


def measure(args, kernel):
    script = project.ROOT / "scripts" / "lib" / "place_inside.sh"
    chosen = [f"{name}={program}" for name, program in schedulers(args).items()]
    command = ["bash", str(script), str(project.RELEASE), str(args.rounds), str(args.secs_scale), ",".join(args.cases), *chosen]
    out = io.BytesIO()
    job = vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernel,
        command=command,
        timeout_secs=4 * 3600,
        stdout=out,
        cpus=args.cpus,
        memory=args.memory,
        virtual_time=args.virtual_time,
    )
    outcome = project.run_guest(job)
    if outcome.status:
        raise project.Failure(f"the measurement failed with status {outcome.status}")
    return outcome, reports(out.getvalue().decode())


def reports(text):
    """By case and scheduler. A guest that was run again printed its first run, too: what follows the last begin counts."""
    found = {}
    for line in text.rpartition("begin\n")[2].splitlines():
        scheduler, case, report = line.split("\t")
        found.setdefault(case, {}).setdefault(scheduler, []).append(json.loads(report))
    return found


def metrics(case, runs):
    """The values of each metric in the runs that did not fail."""
    values = {}
    for report in runs:
        if "failed" not in report:
            for metric, value in CASES[case][2](report).items():
                values.setdefault(metric, []).append(value)
    return values


def table(found, names):
    """Rows of cells: case, metric, each scheduler, each ratio to the default."""
    others = names[1:]
    rows = [["case", "metric", *names, *(["ratio"] if len(others) == 1 else [f"ratio {name}" for name in others])]]
    for case, by in found.items():
        values = {name: metrics(case, by.get(name, [])) for name in names}
        rows.extend([case, metric, *cells(metric, values, names)] for metric in next((v for v in values.values() if v), {}))
    return rows


def cells(metric, values, names):
    by = [values[name].get(metric) for name in names]
    ratios = ["-" if not by[0] or not v or not statistics.median(by[0]) else f"{statistics.median(v) / statistics.median(by[0]):.2f}" for v in by[1:]]
    return [*map(shown, by), *ratios]


def show(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        padded = [cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(padded).rstrip())


def main(argv):
    args = parse(argv)
    kernel = kernels.ensure(args.kernel)
    project.build()
    outcome, found = measure(args, kernel)
    machine = f"{outcome.accel}, virtual time" if args.virtual_time else outcome.accel
    print(f"kernel {outcome.version}, {args.cpus} CPUs ({machine}), medians (and spread) of {args.rounds}, seconds scaled by {args.secs_scale:g}")
    show(table(found, list(schedulers(args))))
    for case, by in found.items():
        for name, runs in by.items():
            failures = [report["failed"] for report in runs if "failed" in report]
            if failures:
                print(f"{name}, {case}: {len(failures)} of {args.rounds} runs failed: {failures[0]}")
    for warning in outcome.warnings:
        print(f"kernel log: {warning}")
    if args.json:
        whole = {"kernel": outcome.version, "accel": outcome.accel, "cpus": args.cpus, "virtual_time": args.virtual_time, "secs_scale": args.secs_scale, "reports": found}
        args.json.write_text(json.dumps(whole, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"place: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
