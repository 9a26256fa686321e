# SPDX-License-Identifier: GPL-2.0-only
"""The command line of scripts/vm."""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

import kernels
import vmrun

EPILOG = """\
COMMAND is run as it stands, as root, in the current folder, with the host's
files: the root is read-only or under overlays that vanish with the guest. What
a command is to leave behind goes into a folder given with --rw. Its stdin is
empty. For shell syntax use: -- sh -c '...'

exit status: COMMAND's own; 124 when it ran into --timeout; 125 when the machine
failed (died under COMMAND, did not boot, cannot be set up); 2 for bad usage.
A guest that dies before COMMAND starts is booted again, 3 times in all, and
that is said on stderr.

With --cpus-max the machine has room for more CPUs. COMMAND asks for one by making
the file $SCX_PROXY_VM_PLUG; when the file is gone, the CPU is there, off line.

examples:
  scripts/vm 7.3 -- uname -r
  scripts/vm 6.18 -- sh -c 'cat /sys/kernel/sched_ext/state; ls /boot'
  scripts/vm --cpus 2 --timeout 60 7.3 -- target/release/scx_proxy --stats 1
  scripts/vm --kernel ~/linux/arch/x86/boot/bzImage -- target/release/scx_proxy doctor
  scripts/vm --cpus 4 --threads 2 --append maxcpus=3 7.3 -- lscpu
  scripts/vm --rw target/out --kernel-log console.log 7.3 -- sh -c 'dmesg > target/out/dmesg'
"""


def positive(text):
    value = float(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def cpus(text):
    value = int(text)
    if not 1 <= value <= vmrun.CPUS_MAX:
        raise argparse.ArgumentTypeError(f"must be 1 to {vmrun.CPUS_MAX}")
    return value


def parse(argv):
    # Everything after the first "--" is the command's, whatever it looks like.
    split = argv.index("--") if "--" in argv else len(argv)
    own, command = argv[:split], argv[split + 1 :]
    parser = argparse.ArgumentParser(
        prog="scripts/vm",
        usage="scripts/vm [options] SERIES | --kernel IMAGE -- COMMAND...",
        description="Boots a Debian sched_ext kernel, or another one, in a virtual machine and runs COMMAND in it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("series", nargs="?", metavar="SERIES", help="7.3, 6.18, ... (scripts/kernel --list)")
    parser.add_argument("--kernel", metavar="IMAGE", help="a kernel image (bzImage) instead of a SERIES; nothing is fetched, and Debian's tools are not needed")
    parser.add_argument("--cpus", type=cpus, default=4, metavar="N", help="virtual CPUs (default %(default)s); more than 64 want --virtual-time")
    parser.add_argument("--threads", type=cpus, default=1, metavar="N", help="of a core (default %(default)s)")
    parser.add_argument("--cpus-max", type=cpus, metavar="N", help="CPUs that may be plugged in while it runs: touch $SCX_PROXY_VM_PLUG")
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="of the guest (default %(default)s)")
    parser.add_argument("--timeout", type=positive, metavar="SECS", help="for COMMAND, not for the boot (default: none)")
    parser.add_argument("--rw", action="append", default=[], metavar="DIR", help="let the guest write DIR, at the same path")
    parser.add_argument("--append", action="append", default=[], metavar="KARGS", help="more kernel command line")
    parser.add_argument("--kernel-log", type=Path, metavar="FILE", help="keep the whole console")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write how it went as JSON: boots, retries, times, warnings")
    parser.add_argument(
        "--virtual-time",
        action="store_true",
        help="emulate, on a clock that counts instructions (2 ns each) and nothing else; slow",
    )
    parser.add_argument(
        "--even-us",
        type=int,
        metavar="USECS",
        help="with --virtual-time: no CPU stands still for much longer while others are busy (200 is good); slower",
    )
    parser.add_argument("--offline", action="store_true", help="take the cached kernel, without asking the network")
    args = parser.parse_args(own)
    if not command:
        parser.error("no COMMAND; put it after --")
    if (args.series is None) == (args.kernel is None):
        parser.error("name a SERIES, or an image with --kernel")
    return args, command


def main(argv):
    args, command = parse(argv)
    try:
        if args.series:
            kernels.entry(args.series)
    except kernels.KernelError as error:
        vmrun.say(f"error: {error}")
        return 2
    try:
        job = vmrun.Job(
            kernel=kernels.own_image(args.kernel) if args.kernel else kernels.ensure(args.series, offline=args.offline),
            command=command,
            cpus=args.cpus,
            threads=args.threads,
            cpus_max=args.cpus_max,
            memory=args.memory,
            timeout_secs=args.timeout,
            rw=[os.path.realpath(path) for path in args.rw],
            append=args.append,
            virtual_time=args.virtual_time,
            even_us=args.even_us,
            boot_secs=None if args.kernel else kernels.entry(args.series)["boot_secs"],
            kernel_log=args.kernel_log,
            fail_boots=int(os.environ.get("SCX_PROXY_VM_FAIL_BOOTS", "0")),
        )
        outcome = vmrun.run(job)
    except BrokenPipeError:
        raise
    except (kernels.KernelError, vmrun.VmError, OSError) as error:
        vmrun.say(f"error: {error}")
        return vmrun.STATUS_VM_FAILED
    if outcome.retries and outcome.reason != "no boot":
        vmrun.say(f"{outcome.retries} of {outcome.boots} boots died early and were retried")
    if args.report:
        report = dataclasses.asdict(outcome) | {"retries": outcome.retries, "command": command}
        args.report.write_text(json.dumps(report, indent=1) + "\n")
    return outcome.status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)
