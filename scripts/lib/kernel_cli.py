# SPDX-License-Identifier: GPL-2.0-only
"""The command line of scripts/kernel: one path a line on stdout, the rest on stderr."""

import argparse
import sys

import kernel_build
import kernels
import roots

EPILOG = """\
A kernel's folder has boot/vmlinuz-VERSION, boot/config-VERSION and
lib/modules/VERSION, and its name is VERSION. It is cached outside the
repository; the package lists are read again when they are a day old.

examples:
  scripts/kernel 7.3           fetch it if need be, print its folder
  scripts/kernel --list        the series, which tests use them, what is cached
  scripts/kernel --all         fetch every kernel
  scripts/kernel --build 7.3-lockdep
                               build it of Debian's linux-source (root)
"""


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/kernel",
        description="Fetches Debian's newest sched_ext kernel of a series, or builds one, and prints its folder.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("series", nargs="*", metavar="SERIES", help="7.3, 6.18, 7.3-rt, ... (see --list)")
    parser.add_argument("--all", action="store_true", help="every kernel of scripts/kernels.toml")
    parser.add_argument("--build", action="store_true", help="build the series named, of Debian's source and scripts/configs, even if they are there; takes root, 10 GB of space for a while, and on two cores half an hour each")
    parser.add_argument("--list", action="store_true", help="show the series, fetch nothing")
    parser.add_argument("--refresh", action="store_true", help="read the package lists again first")
    parser.add_argument("--offline", action="store_true", help="use what is cached, without the network")
    args = parser.parse_args(argv)
    if not (args.series or args.all or args.list):
        parser.error("name a series, or --all, or --list")
    if args.build and (args.all or args.list or args.offline or not args.series):
        parser.error("--build: name the series, and without --all, --list and --offline")
    return args


def distinct(names):
    """One series of each kernel: some differ in the machine only."""
    by_kernel = {}
    for name in names:
        table = kernels.entry(name)
        if table["build"]:
            continue
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
        if args.build:
            for path in kernel_build.build(args.series, args.refresh):
                print(path, flush=True)
            return 0
        for name in distinct(kernels.matrix()) if args.all else args.series:
            print(kernels.ensure(name, refresh=args.refresh, offline=args.offline), flush=True)
    except (kernels.KernelError, roots.RootError) as error:
        kernels.say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
