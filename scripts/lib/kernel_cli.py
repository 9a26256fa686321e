# SPDX-License-Identifier: GPL-2.0-only
"""The command line of scripts/kernel: one path a line on stdout, the rest on stderr."""

import argparse
import sys

import kernels

EPILOG = """\
A kernel's folder has boot/vmlinuz-VERSION, boot/config-VERSION and
lib/modules/VERSION, and its name is VERSION. It is cached outside the
repository; the package lists are read again when they are a day old.

examples:
  scripts/kernel 7.3           fetch it if need be, print its folder
  scripts/kernel --list        the series, which tests use them, what is cached
  scripts/kernel --all         fetch every kernel
"""


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/kernel",
        description="Fetches Debian's newest sched_ext kernel of a series and prints its folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("series", nargs="*", metavar="SERIES", help="7.3, 6.18, 7.3-rt, ... (see --list)")
    parser.add_argument("--all", action="store_true", help="every kernel of scripts/kernels.toml")
    parser.add_argument("--list", action="store_true", help="show the series, fetch nothing")
    parser.add_argument("--refresh", action="store_true", help="read the package lists again first")
    parser.add_argument("--offline", action="store_true", help="use what is cached, without the network")
    args = parser.parse_args(argv)
    if not (args.series or args.all or args.list):
        parser.error("name a series, or --all, or --list")
    return args


def distinct(names):
    """One series of each kernel: some differ in the machine only."""
    by_kernel = {}
    for name in names:
        table = kernels.entry(name)
        by_kernel.setdefault((table["suite"], table["version"], table["flavour"]), name)
    return by_kernel.values()


def main(argv):
    args = parse(argv)
    if args.list:
        print(f"{'series':11} {'tests':5} {'machine':25} {'cached':32} note")
        for name, table in kernels.matrix().items():
            have = kernels.cached(name)
            tests = table["tests"] if isinstance(table["tests"], str) else "some"
            print(f"{name:11} {tests:5} {kernels.machine(table):25} {have.name if have else '-':32} {table['note']}")
        return 0
    try:
        # All the names first: a typo should not show after a long download.
        for name in args.series:
            kernels.entry(name)
        for name in distinct(kernels.matrix()) if args.all else args.series:
            print(kernels.ensure(name, refresh=args.refresh, offline=args.offline), flush=True)
    except kernels.KernelError as error:
        kernels.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
