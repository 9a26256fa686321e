# SPDX-License-Identifier: GPL-2.0-only
"""The demo: measure both schedulers on one kernel, in one run, print one table."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import kernels
import project
import vmrun

# LOCKS:TOPOLOGIES[:MORE ARGUMENTS]; two hogs per CPU for f_pos_lock and pthread, one for the others: inversion's own defaults
QUICK = [
    "f_pos_lock:same",
    "i_rwsem:cross",
    "pi_mutex:cross",
    "pthread:unpinned",
    "pthread:same:--owner-max 5 --waiter-weight 1000",
]
FULL = [
    "f_pos_lock:same,cross,unpinned",
    "seq_file,chain,sleeping_owner:cross",
    "f_pos_lock:cross,unpinned:--waiter-policy fifo",
    "i_rwsem,mmap_lock,pi_mutex,mutex_rwsem,pthread_then_mutex:cross",
    "pthread:same,cross,unpinned",
    "f_pos_lock,pthread:same:--owner-weight 1 --waiter-weight 1000",
    "pthread:same:--owner-max 5 --waiter-weight 1000",
]
# of the kernel with mainline's own proxy execution
VERSUS_SERIES = "7.3"


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Prints the inversion factor (wait / CPU time that the lock's owner still needed) with the "
        "kernel's default scheduler and with scx_proxy, side by side. 1.0 is the physical limit; the fair ideal is "
        "what the waiter would get had it done the owner's work itself.",
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES|IMAGE", help="Debian kernel to boot (default %(default)s; scripts/kernel --list), or the path of an image (bzImage)")
    parser.add_argument("--host", action="store_true", help="measure this machine's own kernel: needs root and sched_ext, and puts load on every CPU for minutes")
    parser.add_argument("--versus", choices=["pe"], help="a third column: the same on a kernel with mainline's own proxy execution (scripts/kernel --build 7.3-pe)")
    parser.add_argument("--full", action="store_true", help="all 19 rows, which take a quarter of an hour; otherwise five")
    parser.add_argument("--trials", type=int, metavar="N", help="staged inversions per scenario and scheduler (default 3, with --full 5)")
    parser.add_argument("--critical-ms", type=int, metavar="MS", help="CPU time the owner still needs when the wait begins (default 20, with --full 50)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to FILE ('-': stdout)")
    args = parser.parse_args(argv)
    args.scenarios = FULL if args.full else QUICK
    if args.trials is None:
        args.trials = 5 if args.full else 3
    if args.critical_ms is None:
        args.critical_ms = 50 if args.full else 20
    if args.versus and args.host:
        parser.error("--versus boots a kernel of its own beside that of --kernel: not with --host")
    if not 1 <= args.trials <= 100:
        parser.error("--trials: not in 1..100")
    return args


def inside(args, what, binaries, out_dir):
    script = project.ROOT / "scripts" / "lib" / "demo_inside.sh"
    return ["bash", str(script), str(binaries), str(out_dir), what, str(args.trials), str(args.critical_ms), *args.scenarios]


def host_check():
    if not Path("/sys/kernel/sched_ext/state").exists():
        raise project.Failure("this kernel has no sched_ext: run without --host to use a VM")
    if Path("/sys/kernel/sched_ext/state").read_text().strip() == "enabled":
        raise project.Failure("another sched_ext scheduler is loaded: stop it first")
    if os.geteuid():
        raise project.Failure("--host needs root: sudo scripts/demo --host")


def measure(args, what, kernel, binaries, out_dir):
    command = inside(args, what, binaries, out_dir)
    if kernel is None:
        status = subprocess.run(command).returncode
    else:
        job = vmrun.Job(cwd=str(project.ROOT), kernel=kernel, command=command, timeout_secs=3600, rw=[str(out_dir)])
        status = project.run_guest(job).status
    if status:
        raise project.Failure(f"the measurement failed with status {status}")


def joined(out_dir, scheduler, nr_scenarios):
    """One report of the scenarios' reports: the same kernel and machine."""
    parts = [json.loads((out_dir / f"{scheduler}.{nr}.json").read_text()) for nr in range(1, nr_scenarios + 1)]
    return parts[0] | {"scenarios": [scenario for part in parts for scenario in part["scenarios"]]}


def lines(reports):
    """Both reports as JSON, with a line for each scenario: a diff of two runs shows which differ."""

    def report(part):
        head = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in part.items() if key != "scenarios"]
        rows = ",\n".join(f"   {json.dumps(scenario)}" for scenario in part["scenarios"])
        return ",\n".join([*head, f'  "scenarios": [\n{rows}\n  ]'])

    return "{\n" + ",\n".join(f" {json.dumps(name)}: {{\n{report(part)}\n }}" for name, part in reports.items()) + "\n}\n"


def main(argv):
    args = parse(argv)
    kernel = None
    if args.host:
        host_check()
    else:
        # as lib/launch.sh tells them apart
        kernel = kernels.own_image(args.kernel) if "/" in args.kernel else kernels.ensure(args.kernel)
    # before anything long: it has to be built
    versus = kernels.ensure(f"{VERSUS_SERIES}-{args.versus}") if args.versus else None
    binaries = project.build_soon()
    # below the cache, since the guest hides /tmp
    run_dir = kernels.cache_dir() / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_dir) as tmp:
        out_dir = Path(tmp)
        measure(args, "both", kernel, binaries, out_dir)
        names = ["default", "proxy"]
        if args.versus:
            measure(args, args.versus, versus, binaries, out_dir)
            names.append(args.versus)
        reports = {name: joined(out_dir, name, len(args.scenarios)) for name in names}
        files = []
        for name, report in reports.items():
            files.append(out_dir / f"{name}.json")
            files[-1].write_text(json.dumps(report))
        if args.json:
            sys.stdout.write(lines(reports)) if str(args.json) == "-" else args.json.write_text(lines(reports))
        if not args.json or str(args.json) != "-":
            subprocess.run([binaries / "inversion", "--compare", *files], check=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError) as error:
        print(f"demo: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
