# SPDX-License-Identifier: GPL-2.0-only
"""The command line of scripts/bench, and its flow: ordinary work under schedulers in turn, in one guest.

A benchmark, not a test: nothing here passes or fails.
"""

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path

import bench_plot
import bench_table
import bench_works
import kernels
import peers
import project
import vm_cli
import vmrun

EPILOG = """\
In the table are medians, and in brackets the least and the largest run. Two schedulers differ only if no run of
one is as good as any run of the other, in three runs each at least; else the table says "no difference".

Real time is for throughput, on a quiet machine. The virtual clock counts instructions, 2 ns each, and an idle CPU is as
fast as a busy one: latencies and costs do not depend on the host. It is slow.

works:
"""

# what must be the same of measurements that are put together
SETTING = ("kernel", "accel", "cpus", "clock", "even_us", "secs_scale")
VARIANTS = {flags: flags.split() for flags in ("--observe", "--locks none --no-agent", "--locks -pthread")}


def names_of(known):
    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse


def parser():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures ordinary work with the kernel's default scheduler, with scx_proxy, and with other sched_ext schedulers, in turn, in one guest.",
        epilog=EPILOG + "".join(f"  {name:18} {work.about}\n" for name, work in bench_works.WORKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kernel", default="7.3", metavar="SERIES", help="Debian kernel to boot (default %(default)s)")
    parser.add_argument("--cpus", type=vm_cli.cpus, default=4, metavar="N", help="virtual CPUs (default %(default)s)")
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="of the guest (default %(default)s)")
    parser.add_argument("--clock", choices=["real", "virtual"], default="real", help="(default %(default)s)")
    parser.add_argument("--even-us", type=int, metavar="USECS", help="with --clock virtual: no CPU stands still for much longer while others are busy (200 is good); slower")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each scheduler (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="runs of each work in a turn (default %(default)s); where it takes long to load a scheduler")
    parser.add_argument("--secs-scale", type=vm_cli.positive, default=1.0, metavar="F", help="make all runs so much longer, or shorter (default %(default)s)")
    parser.add_argument("--limit-secs", type=vm_cli.positive, default=6 * 3600, metavar="SECS", help="end after so long, with what was measured by then (default %(default)s)")
    parser.add_argument("--works", type=names_of(bench_works.WORKS), default=list(bench_works.WORKS), metavar="A,B,...", help="only these")
    parser.add_argument(
        "--peers",
        type=names_of(peers.VERSIONS),
        nargs="?",
        const=list(peers.VERSIONS),
        default=[],
        metavar="A,B,...",
        help=f"also {', '.join(peers.VERSIONS)}, or these of them; built from the cargo registry the first time",
    )
    parser.add_argument("--program", action="append", default=[], type=Path, metavar="PATH", help="also this sched_ext scheduler, or another build of this one, run without arguments; may be repeated")
    parser.add_argument("--variants", action="store_true", help=f"also scx_proxy with {'; with '.join(VARIANTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw ratios to the default into FILE (SVG)")
    parser.add_argument("--from", type=Path, nargs="+", default=[], dest="kept", metavar="FILE", help="measure nothing: put together what --json wrote; rounds add up")
    return parser


def parse(argv):
    own = parser()
    args = own.parse_args(argv)
    if args.rounds < 1 or args.repeats < 1:
        own.error("--rounds and --repeats: at least 1")
    for program in args.program:
        if not program.is_file():
            own.error(f"--program {program}: no such program")
    if args.even_us and args.clock != "virtual":
        own.error("--even-us wants --clock virtual")
    return args


def works(args):
    """Those that can be done here."""
    lacking = {work: bench_works.missing(work) for work in args.works}
    for work, program in lacking.items():
        if program:
            project.say(f"bench: {work} is left out: there is no {program}")
    there = [work for work, program in lacking.items() if not program]
    if not there:
        raise project.Failure("no work is left")
    return there


def schedulers(args):
    """Each by its name in the table: program and arguments."""
    own = str(project.RELEASE / bench_table.OWN)
    chosen = {bench_table.DEFAULT: [], bench_table.OWN: [own]}
    if args.variants:
        chosen |= {name: [own, *flags] for name, flags in VARIANTS.items()}
    chosen |= {name: [program] for name, program in peers.ensure(args.peers).items()}
    return chosen | {str(program): [str(program.resolve())] for program in args.program}


def measured(text):
    """By work and scheduler. A guest that was run again printed its first run, too: what follows the last begin counts."""
    runs = {}
    complete = text[: text.rfind("\n") + 1]
    for line in complete.rpartition("begin\n")[2].splitlines():
        scheduler, work, values = line.split("\t")
        runs.setdefault(work, {}).setdefault(scheduler, []).append(json.loads(values))
    return runs


def measure(args):
    kernel = kernels.ensure(args.kernel)
    project.build()
    chosen = schedulers(args)
    script = project.ROOT / "scripts" / "lib" / "bench_inside.sh"
    cases = [work for work in works(args) for _ in range(args.repeats)]
    turns = [f"{name}=" + "\t".join(command) for name, command in chosen.items()]
    out = io.BytesIO()
    job = vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernel,
        command=["bash", str(script), str(project.RELEASE), str(args.rounds), str(args.secs_scale), ",".join(cases), *turns],
        timeout_secs=args.limit_secs,
        stdout=out,
        cpus=args.cpus,
        memory=args.memory,
        virtual_time=args.clock == "virtual",
        even_us=args.even_us,
    )
    outcome = project.run_guest(job)
    runs = measured(out.getvalue().decode())
    if outcome.reason == "timeout" and runs:
        project.say(f"bench: ended after {args.limit_secs:g} s, before all rounds were done")
    elif outcome.status:
        raise project.Failure(f"the measurement failed with status {outcome.status}")
    for warning in outcome.warnings:
        project.say(f"kernel log: {warning}")
    return {
        "kernel": outcome.version,
        "accel": outcome.accel,
        "cpus": args.cpus,
        "clock": args.clock,
        "even_us": args.even_us,
        "secs_scale": args.secs_scale,
        "schedulers": [name if name not in peers.VERSIONS else f"{name} {peers.VERSIONS[name]}" for name in chosen],
        "runs": runs,
    }


def put_together(files):
    """What the files hold, as one measurement."""
    whole = None
    for file in files:
        part = json.loads(file.read_text())
        if whole is None:
            whole = part
            continue
        for key in SETTING:
            if part[key] != whole[key]:
                raise project.Failure(f"{file} and {files[0]} cannot be put together: {key} is {part[key]} and {whole[key]}")
        whole["schedulers"] += [name for name in part["schedulers"] if name not in whole["schedulers"]]
        for work, by in part["runs"].items():
            for name, runs in by.items():
                whole["runs"].setdefault(work, {}).setdefault(name, []).extend(runs)
    return whole


def headline(whole):
    clock = "real time" if whole["clock"] == "real" else "virtual time"
    if whole["even_us"]:
        clock += f", turns of {whole['even_us']} us"
    counts = sorted({len(runs) for by in whole["runs"].values() for runs in by.values()})
    rounds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"kernel {whole['kernel']}, {whole['cpus']} CPUs ({whole['accel']}, {clock}), medians (and spread) of {rounds} runs, seconds scaled by {whole['secs_scale']:g}"


def main(argv):
    args = parse(argv)
    whole = put_together(args.kept) if args.kept else measure(args)
    names = list(dict.fromkeys(name for by in whole["runs"].values() for name in by))
    print(f"{headline(whole)}\n")
    print(bench_table.markdown(bench_table.rows(whole["runs"], names)))
    for failure in bench_table.failures(whole["runs"]):
        print(failure)
    if args.json:
        args.json.write_text(json.dumps(whole, indent=1) + "\n")
    if args.plot:
        bench_plot.write(args.plot, whole["runs"], names, headline(whole))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
