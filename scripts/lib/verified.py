# SPDX-License-Identifier: GPL-2.0-only
"""Instructions that the verifier of each kernel looks at, program by program, as a table.

Each kernel boots, and `scx_proxy doctor --verify` runs there. A program that grows much takes longer to
load, and is refused at a million: so the figures are kept, and compared with earlier ones.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import kernels
import project
import vmrun

KERNELS = ("7.3", "6.18", "6.16", "7.3-rt")
GUEST_SECS = 600
TOTAL = "total"


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/verified",
        description="Prints how many instructions the verifier of each kernel looks at, by program, as Markdown. "
        "Exits with 1 if a kernel refuses a program, or a total has grown by more than --grown-max.",
    )
    parser.add_argument("--kernel", action="append", metavar="SERIES", help=f"only these kernels (repeatable; default {', '.join(KERNELS)})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures, for --against")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with figures kept earlier")
    parser.add_argument("--grown-max", type=float, default=10.0, metavar="PERCENT", help="how much more than those is no failure (default %(default)s)")
    args = parser.parse_args(argv)
    args.kernel = args.kernel or list(KERNELS)
    if args.grown_max < 0:
        parser.error("--grown-max: below 0")
    return args


def verified(series):
    """{program: instructions} on a kernel, the sum among them."""
    out = io.BytesIO()
    job = vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernels.ensure(series),
        command=[str(project.RELEASE / "scx_proxy"), "doctor", "--verify", "--json"],
        timeout_secs=GUEST_SECS,
        stdout=out,
    )
    outcome = project.run_guest(job)
    if outcome.status:
        raise project.Failure(f"{series}: doctor --verify ended with status {outcome.status}")
    report = json.loads(out.getvalue())
    return {program["name"]: program["verified_insns"] for program in report["programs"]} | {TOTAL: report["verified_insns"]}


def table(figures, before):
    """Markdown: a row a program, the largest first, and a column a kernel; beside a total what it was before."""
    all_names = {name for programs in figures.values() for name in programs}
    names = sorted(all_names - {TOTAL}, key=lambda name: (-max(programs.get(name, 0) for programs in figures.values()), name))
    rows = [["program", *figures], ["---", *("---:" for _ in figures)]]
    for name in [*names, TOTAL]:
        cells = [f"{programs[name]:,}" if name in programs else "" for programs in figures.values()]
        if name == TOTAL:
            changes = [grown(programs, before.get(series)) for series, programs in figures.items()]
            cells = [cell + (f" ({change:+.1f} %)" if change is not None else "") for cell, change in zip(cells, changes)]
        rows.append([name, *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def grown(programs, before):
    """By how many per cent the total has; None if there was none before."""
    return 100 * (programs[TOTAL] / before[TOTAL] - 1) if before else None


def read(path):
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise project.Failure(f"{path} is no file of --json: {error}") from None


def main(argv):
    args = parse(argv)
    for series in args.kernel:
        kernels.entry(series)
    before = read(args.against) if args.against else {}
    project.build()
    figures = {series: verified(series) for series in args.kernel}
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures, before))
    changes = {series: grown(programs, before.get(series)) for series, programs in figures.items()}
    too_many = [f"{series} by {change:.1f} %" for series, change in changes.items() if change is not None and change > args.grown_max]
    if too_many:
        raise project.Failure(f"more than {args.grown_max:g} % grown: {', '.join(too_many)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"verified: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
