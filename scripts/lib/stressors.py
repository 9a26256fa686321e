# SPDX-License-Identifier: GPL-2.0-only
"""Stress programs of other projects: which pass under the kernel's default scheduler, and which under scx_proxy.

A program passes if it exits with 0 in time, the scheduler stays loaded, and the kernel complains of nothing.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import kernels
import project
import vm_cli
import vmrun

SCHEDULERS = ("default", "scx_proxy")

STRESS_NG = (
    "affinity", "clone", "cpu-sched", "exec", "fork", "forkheavy", "futex", "hrtimers", "kill", "membarrier", "mmap", "mmapfork",
    "mutex", "nanosleep", "pipeherd", "prio-inv", "pthread", "ptrace", "resched", "schedpolicy", "sem", "sigrt", "sleep", "switch", "vfork",
    "vforkmany", "wait", "yield", "zombie",
)  # fmt: skip

PROGRAMS = (
    "pi_stress", "pip_stress", "rt-migrate-test", "hackbench", "perf/futex-hash", "perf/futex-lock-pi", "perf/futex-requeue",
    "perf/futex-wake", "perf/sched-messaging", *(f"stress-ng/{name}" for name in STRESS_NG),
)  # fmt: skip


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/stressors",
        description="Runs stress programs of rt-tests, perf and stress-ng in one guest, under the kernel's default scheduler and then under "
        "scx_proxy, and prints which pass: exit 0 in time, scheduler still loaded, nothing new in the kernel's log.",
        epilog="exit status: 0 if all that pass by default pass under scx_proxy, else 1.\n\nprograms: " + ", ".join(PROGRAMS),
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES", help="Debian kernel to boot (default %(default)s)")
    parser.add_argument("--cpus", type=vm_cli.cpus, default=4, metavar="N", help="virtual CPUs (default %(default)s)")
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="of the guest (default %(default)s)")
    parser.add_argument("--secs", type=int, default=5, metavar="N", help="how long each program runs that takes a time (default %(default)s)")
    parser.add_argument("--only", action="append", choices=PROGRAMS, metavar="PROGRAM", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to FILE")
    args = parser.parse_args(argv)
    if args.secs < 1:
        parser.error("--secs: at least 1")
    args.programs = [name for name in PROGRAMS if not args.only or name in args.only]
    return args


def measure(args, kernel):
    script = project.ROOT / "scripts" / "lib" / "stressors_inside.sh"
    out = io.BytesIO()
    job = vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernel,
        command=["bash", str(script), str(project.RELEASE), str(args.secs), *args.programs],
        timeout_secs=4 * 3600,
        stdout=out,
        cpus=args.cpus,
        memory=args.memory,
    )
    outcome = project.run_guest(job)
    if outcome.status:
        raise project.Failure(f"the run failed with status {outcome.status}")
    return outcome, verdicts(out.getvalue().decode())


def verdicts(text):
    """By program and scheduler: status and detail. What follows the last begin counts."""
    found = {}
    for line in text.rpartition("begin\n")[2].splitlines():
        scheduler, program, status, detail = line.split("\t")
        found.setdefault(program, {})[scheduler] = (status, detail)
    return found


def regressions(found):
    """Programs that pass by default and do not under scx_proxy."""
    return [name for name, by in found.items() if by["default"][0] == "ok" and by.get("scx_proxy", ("missing", ""))[0] != "ok"]


def show(found):
    print(f"| {'program':26} | {'default':10} | {'scx_proxy':10} |\n|---|---|---|")
    for name, by in found.items():
        statuses = [by.get(scheduler, ("missing", ""))[0] for scheduler in SCHEDULERS]
        print(f"| {name:26} | {statuses[0]:10} | {statuses[1]:10} |")
    for name, by in found.items():
        for scheduler, (status, detail) in by.items():
            if status != "ok" and (scheduler == "default" or status != "absent"):
                print(f"{name}, {scheduler}: {status}: {detail}")
    counts = [sum(by.get(scheduler, ("",))[0] == "ok" for by in found.values()) for scheduler in SCHEDULERS]
    absent = sum(by["default"][0] == "absent" for by in found.values())
    print(f"{len(found)} programs, {absent} of them absent: {counts[0]} pass by default, {counts[1]} under scx_proxy")


def main(argv):
    args = parse(argv)
    kernel = kernels.ensure(args.kernel)
    project.build()
    outcome, found = measure(args, kernel)
    print(f"kernel {outcome.version}, {args.cpus} CPUs ({outcome.accel}), {args.secs} s each")
    show(found)
    for warning in outcome.warnings:
        print(f"kernel log: {warning}")
    if args.json:
        whole = {"kernel": outcome.version, "accel": outcome.accel, "cpus": args.cpus, "secs": args.secs, "programs": found}
        args.json.write_text(json.dumps(whole, indent=1) + "\n")
    worse = regressions(found)
    if worse:
        print("worse than by default: " + ", ".join(worse), file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"stressors: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
