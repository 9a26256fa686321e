# SPDX-License-Identifier: GPL-2.0-only
"""Many staged inversions under scx_proxy, on a clock that the host has no part in: none may take too long.

What is rare is what users feel: a mean of 1.0 says nothing of the one trial in a hundred in which nobody was lent to.
Virtual time, in short turns of the CPUs, leaves the scheduler's own misses and nothing else.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import kernels
import project
import vmrun

EVEN_US = 200


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/campaign",
        description="Stages inversions under scx_proxy in a guest, in virtual time, and prints percentiles of their factors. Exits 1 if "
        "a factor is above --factor-max, or a scenario had no staged trial.",
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES", help="Debian kernel to boot (default %(default)s)")
    parser.add_argument("--lock", default="pthread", metavar="LOCKS", help="as `inversion --lock` (default %(default)s)")
    parser.add_argument("--topology", default="same,cross,unpinned", metavar="LIST", help="as `inversion --topology` (default %(default)s)")
    parser.add_argument("--trials", type=int, default=100, metavar="N", help="staged trials of each scenario (default %(default)s)")
    parser.add_argument("--critical-ms", type=int, default=20, metavar="MS", help="CPU time that the owner shall still need (default %(default)s)")
    parser.add_argument("--factor-max", type=float, default=2.0, metavar="X", help="largest factor that is no failure (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the report of `inversion`")
    parser.add_argument("--record", type=Path, metavar="FILE", help="record the trials, for `scx_proxy replay`; they take longer for it")
    return parser.parse_args(argv)


def measure(args, kernel, out_dir):
    script = project.ROOT / "scripts" / "lib" / "campaign_inside.sh"
    trials = ["--trials", str(args.trials), "--critical-ms", str(args.critical_ms)]
    command = ["bash", str(script), str(project.RELEASE), str(out_dir), "yes" if args.record else "no", "--lock", args.lock, "--topology", args.topology, *trials]
    job = vmrun.Job(
        cwd=str(project.ROOT), kernel=kernel, command=command, timeout_secs=3600, rw=[str(out_dir)], virtual_time=True, even_us=EVEN_US
    )
    outcome = project.run_guest(job)
    if outcome.status:
        raise project.Failure(f"the trials failed with status {outcome.status}")
    return outcome


def row(scenario, factor_max):
    """A line about a scenario, and whether it is well."""
    name = f"{scenario['lock']} {scenario['topology']}"
    if scenario["skipped"]:
        return f"{name}: skipped, {scenario['skipped']}", True
    factor = scenario["factor"]
    if not factor:
        return f"{name}: no trial was staged", False
    shown = ", ".join(f"{key} {factor[key]:.2f}" for key in ("mean", "median", "p90", "p99", "max"))
    far = [nr for nr, trial in enumerate(scenario["trials"]) if trial["factor"] > factor_max]
    more = f"; above {factor_max:g}: trials {far}" if far else ""
    return f"{name}: {scenario['staged']} of {scenario['attempted']} staged, {shown}, ideal {scenario['fair_ideal']:.2f}{more}", not far


def main(argv):
    args = parse(argv)
    kernel = kernels.ensure(args.kernel)
    project.build()
    # below the cache, since the guest hides /tmp
    run_dir = kernels.cache_dir() / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run_dir) as tmp:
        outcome = measure(args, kernel, Path(tmp))
        report = (Path(tmp) / "report.json").read_text()
        if args.json:
            args.json.write_text(report)
        if args.record:
            args.record.write_bytes((Path(tmp) / "recording").read_bytes())
    rows = [row(scenario, args.factor_max) for scenario in json.loads(report)["scenarios"]]
    print(f"kernel {outcome.version}, 4 CPUs, virtual time, turns of {EVEN_US} us")
    for line, _ in rows:
        print(line)
    return 0 if all(well for _, well in rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"campaign: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
