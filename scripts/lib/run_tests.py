# SPDX-License-Identifier: GPL-2.0-only
"""The tests of the project, and one closing line.

Parts: the form of the code and of the rest, the host's tests (cargo), the guest's tests on the
kernels that kernels.toml marks, the VM runner's own tests, a trace in Perfetto's
own parser. A part that fails does not keep the others from running. Without KVM guests run two at a time, each
emulated by one thread. What no other work can disturb runs beside them, in the time that they leave.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import io
import json
import re
import subprocess
import sys
import threading
import time

import kernels
import peers
import project
import vmrun

# of `cargo test` and of tests/guest: test result: ok. 5 passed; 0 failed; 1 ignored; ...
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.M)
PLAIN_RESULT = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)
NEXT_ATTEMPT = re.compile(r"^(?:test .*\.\.\. )?(second|third) attempt of (\S+),", re.M)
# of tests/guest: a test that begins
GUEST_TEST = re.compile(r"^test (\S+) +\.\.\. ", re.M)
HOST_TESTS = ["cli", "core", "cost", "fuzz", "interleave", "model", "record", "top"]
GUEST_SECS = 2100
SLOW_TIMES = 3  # kernels that check themselves, and guests in spare time
SPARE_BOOT_SECS = 3600
SLOWEST_SHOWN = 12
AT_A_TIME = 2
# when nobody else wants the CPU: vmrun.py sees to that for the guest
IN_SPARE_TIME = ["chrt", "--idle", "0"]
# what one of these programs says at its end for another one
SLOWEST, ANOTHER = "slowest in guests: ", "had another attempt: "


class Tally:
    """What passed, failed and was skipped, and where it failed."""

    def __init__(self):
        self.counts = [0, 0, 0]
        self.failed_parts = []
        self.next_attempts = []
        self.secs_of_tests = {}  # those of guests: name and machine

    def take(self, text):
        """What report() said in another program."""
        for line in text.splitlines():
            if line.startswith(SLOWEST):
                pairs = (pair.removesuffix(" s").rpartition(" ") for pair in line.removeprefix(SLOWEST).split(", "))
                self.secs_of_tests |= {test: float(secs) for test, _, secs in pairs}
            elif line.startswith(ANOTHER):
                self.next_attempts.append(line.removeprefix(ANOTHER))

    def part(self, name, started, counts, ok):
        for nr, count in enumerate(counts):
            self.counts[nr] += count
        if not ok:
            self.failed_parts.append(name)
            if not counts[1]:
                self.counts[1] += 1  # it failed as a whole
        state = "ok" if ok else "FAILED"
        print(f"== {name}: {state}, {counts[0]} passed, {counts[1]} failed, {counts[2]} skipped "
              f"({time.monotonic() - started:.0f} s)", flush=True)  # fmt: skip


def sums(pattern, text):
    return [sum(int(m[group] or 0) for m in pattern.finditer(text)) for group in (1, 2, 3)]


def run(command, **more):
    """Run `command` in the project, its output shown as it comes; returns status and stdout."""
    process = subprocess.Popen(command, cwd=project.ROOT, stdout=subprocess.PIPE, text=True, **more)
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(line, end="", flush=True)
    return process.wait(), "".join(lines)


def check(tally, name, command):
    started = time.monotonic()
    print(f"== {name}", flush=True)
    status, _ = run(command)
    tally.part(name, started, [1 - bool(status), 0, 0], not status)


def host(tally):
    started = time.monotonic()
    print("== tests on this machine", flush=True)
    # the guest's tests come later, where they can run; they are built with the others, side by side
    run(["cargo", "test", "--release", "--no-run"])
    status, out = run(["cargo", "test", "--release", "--lib", "--bins", *(word for test in HOST_TESTS for word in ("--test", test))])
    tally.part("tests on this machine", started, sums(CARGO_RESULT, out), not status)


def guest_binary():
    command = ["cargo", "test", "--release", "--test", "guest", "--no-run", "--message-format=json"]
    out = subprocess.run(command, cwd=project.ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in out.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message["target"]["name"] == "guest":
            return message["executable"]
    raise project.Failure("cargo did not say where it put the guest tests")


class Shown(io.BytesIO):
    """Keeps what is written to it, and shows it on stdout as it comes. Knows which test began when."""

    def __init__(self):
        super().__init__()
        self.begun = {}  # name of a test: when
        self.line = ""  # the last one, as far as it is there

    def write(self, data):
        text = bytes(data).decode(errors="replace")
        sys.stdout.write(text)
        sys.stdout.flush()
        super().write(data)
        self.line += text
        for test in GUEST_TEST.findall(self.line):
            self.begun.setdefault(test, time.monotonic())
        self.line = self.line.rpartition("\n")[2]

    def text(self):
        return self.getvalue().decode(errors="replace")

    def secs(self):
        """How long each test took. Of the last one only the end of all tells that."""
        begun = [*self.begun.values(), time.monotonic()]
        return {name: begun[nr + 1] - begun[nr] for nr, name in enumerate(self.begun)}


def untimed(table):
    """Whether the host has no part in the clock of that machine. On an even clock a CPU's turn lasts as long as the host lets it."""
    return table["virtual_time"] and not table["even_us"]


def guest_job(series, table, binary, arguments, out, one_thread):
    """The machine is the one that kernels.toml names."""
    environment = [f"SCX_PROXY_STRESS_SECS={table['stress_secs']}"]
    if table["even_us"]:
        environment.append(f"SCX_PROXY_LAVD={peers.program('scx_lavd')}")
    return vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernels.ensure(series),
        command=["env", *environment, binary, *arguments],
        timeout_secs=GUEST_SECS * (SLOW_TIMES if table["build"] or untimed(table) else 1),
        stdout=out,
        cpus=table["cpus"],
        threads=table["threads"],
        cpus_max=table["cpus_max"],
        append=table["append"],
        memory=table["memory"],
        virtual_time=table["virtual_time"],
        even_us=table["even_us"],
        boot_secs=SPARE_BOOT_SECS if untimed(table) else table["boot_secs"],
        # no CPU runs code that another one is just patching; and there is room for another guest
        one_thread=one_thread,
    )


def guest(tally, series, table, binary, only, one_thread=False):
    name = f"tests on Linux {series} ({kernels.machine(table)})"
    started = time.monotonic()
    print(f"== {name}", flush=True)
    out = Shown()
    try:
        outcome = project.run_guest(guest_job(series, table, binary, [only] if only else [], out, one_thread))
    except (kernels.KernelError, vmrun.VmError, OSError) as error:
        print(f"{name}: error: {error}", flush=True)
        tally.part(name, started, [0, 0, 0], False)
        return
    if outcome.retries:
        print(f"{name}: {outcome.retries} of {outcome.boots} boots died early and were tried again")
    for warning in outcome.warnings:
        print(f"{name}: kernel log: {warning}")
    tally.secs_of_tests |= {f"{test} on {series}": secs for test, secs in out.secs().items()}
    tally.next_attempts += [f"{test} on {series}, the {nr}" for nr, test in NEXT_ATTEMPT.findall(out.text())]
    counts = sums(CARGO_RESULT, out.text())
    ok = not outcome.status and not outcome.warnings and outcome.powered_off and counts[0] > 0 and not counts[1]
    tally.part(name, started, counts, ok)


@dataclasses.dataclass
class Part:
    """A program that says its own results, each of its lines with the label in front."""

    label: str
    name: str
    command: list
    alone: bool = False  # it wants the whole machine
    untimed: bool = False  # it does not matter when it has a CPU

    def run(self, in_spare_time=False):
        """What it said, and its status."""
        # in one piece, since another part writes, too
        print(f"== {self.name}: begins\n", end="", flush=True)
        command = [*IN_SPARE_TIME, *self.command] if in_spare_time else self.command
        process = subprocess.Popen(command, cwd=project.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        lines = []
        for line in process.stdout:
            lines.append(line)
            print(f"{self.label} | {line}", end="", flush=True)
        return "".join(lines), process.wait()


def side_by_side(tally, parts):
    """Some at a time, those that run alone, then what is untimed. One of the last is always there, for the time that others leave."""
    untimed = collections.deque(part for part in parts if part.untimed)
    lock = threading.Lock()

    def run_part(part, in_spare_time=False):
        started = time.monotonic()
        said, status = part.run(in_spare_time)
        with lock:
            tally.take(said)
            tally.part(part.name, started, sums(PLAIN_RESULT, said), not status)

    def run_untimed(in_spare_time):
        while True:
            try:
                part = untimed.popleft()
            except IndexError:  # there is none left
                return
            run_part(part, in_spare_time)

    at_a_time = 1 if vmrun.use_kvm() else AT_A_TIME
    with concurrent.futures.ThreadPoolExecutor(1) as spare, concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        beside = spare.submit(run_untimed, True)
        list(pool.map(run_part, [part for part in parts if not part.untimed and not part.alone]))
        for part in parts:
            if part.alone:
                run_part(part)
        list(pool.map(run_untimed, [False] * at_a_time))
        beside.result()


def guests_alone(guests, binary):
    """guest(), as programs of their own."""
    parts, seen = [], collections.Counter()
    for series, table, only in guests:
        seen[series] += 1
        label = f"{series} part {seen[series]}" if table["apart"] else series
        command = [sys.executable, "-B", __file__, "--kernel", series, "--binary", binary, "--filter", only]
        name = f"tests on Linux {label} ({kernels.machine(table)})"
        parts.append(Part(label, name, command, alone=table["threads_of_its_own"], untimed=untimed(table)))
    return parts


def plain(tally, name, program, *arguments):
    """A program of ours that counts its own results."""
    started = time.monotonic()
    print(f"== {name}", flush=True)
    status, out = run([sys.executable, "-B", str(project.ROOT / "scripts" / "lib" / program), *arguments])
    tally.part(name, started, sums(PLAIN_RESULT, out), not status)


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Runs the tests: form, host, and on Debian kernels in VMs. Takes 40 to 50 minutes on two cores "
        "without KVM, and some hours with --all. Exits 0 if none failed.",
    )
    parser.add_argument("--all", action="store_true", help="also the tests and machines that take longest (kernels.toml: all)")
    parser.add_argument("--kernel", action="append", metavar="SERIES", help="only these kernels (repeatable)")
    parser.add_argument("--filter", metavar="TEXT", help="only guest tests whose name holds TEXT (or another: TEXT,TEXT), and nothing else")
    parser.add_argument("--packages", action="store_true", help="only the packages: in bare Debian roots, and in a guest with systemd. Takes root, and about ten minutes")
    parser.add_argument("--binary", help=argparse.SUPPRESS)  # tests/guest, when it is built already
    return parser.parse_args(argv)


def words(tests):
    """What the guest's program takes: nothing is everything."""
    return ",".join(tests if isinstance(tests, list) else [])


def guests_of(table, tests):
    """The filters of the guests that a list of tests is dealt out to: those that kernels.toml sets apart, and the rest."""
    apart = table["apart"]
    if not apart or tests == "none":
        return [words(tests)]
    left_out = tests if isinstance(tests, list) else []
    rest = [f"!{text}" for texts in apart for text in texts]
    return [words([*texts, *left_out]) for texts in (*apart, rest)]


def left_to_all(table):
    """What plain scripts/test leaves out of a machine's tests."""
    tests, everything = (tests if isinstance(tests, list) else [] for tests in (table["tests"], table["all"]))
    left_out = [text[1:] for text in tests if text[0] == "!" and text not in everything]
    for text in everything:
        if text not in tests and text[0] != "!":
            run = [test for test in tests if test.startswith(text)]
            run += [test[1:] for test in everything if test.startswith(f"!{text}")]
            left_out.append(f"{text} but for {' and '.join(run)}" if run else text)
    return left_out


def wanted(args):
    """Series, table and filter of each guest; which tests plain scripts/test leaves out; which kernels are not there."""
    chosen, left_out, not_built = [], [], []
    for series, table in kernels.matrix().items():
        if args.kernel and series not in args.kernel:
            continue
        if args.all and table["all"] != "none" and table["build"] and not kernels.cached(series):
            not_built.append(series)
            continue
        tests = table["all"] if args.all or args.kernel else table["tests"]
        if tests != "none" or args.kernel:
            chosen += [(series, table, only) for only in ([args.filter] if args.filter else guests_of(table, tests))]
        if not (args.all or args.kernel or args.filter) and table["all"] != table["tests"]:
            left_out.append(f"{series}: {', '.join(left_to_all(table))}")
    return chosen, left_out, not_built


def main(argv):
    args = parse(argv)
    tally = Tally()
    if args.packages:
        plain(tally, "packages", "packages.py")
        return report(tally)
    unknown = set(args.kernel or []) - set(kernels.matrix())
    if unknown:
        raise project.Failure(f"unknown kernel: {', '.join(sorted(unknown))}; scripts/kernel --list shows the known ones")
    guests, left_out, not_built = wanted(args)
    if args.binary:
        ((series, table, only),) = guests
        guest(tally, series, table, args.binary, only, one_thread=not table["threads_of_its_own"])
        return report(tally)
    parts = []
    if not args.filter:
        plain(tally, "licence lines, scripts", "house.py")
        check(tally, "format", ["cargo", "fmt", "--check"])
        check(tally, "lints", ["cargo", "clippy", "--release", "--all-targets", "--", "-D", "warnings"])
        host(tally)
        parts.append(Part("vm", "tests of scripts/vm", [str(project.ROOT / "scripts" / "selftest-vm")]))
        parts.append(Part("trace", "a trace in Perfetto's parser", [str(project.ROOT / "scripts" / "check-trace"), "--built"]))
    binary = guest_binary()
    if len(guests) == 1 and not parts:
        ((series, table, only),) = guests
        guest(tally, series, table, binary, only)
    else:
        side_by_side(tally, guests_alone(guests, binary) + parts)
    for machine in left_out:
        print(f"left to scripts/test --all: {machine}")
    for series in not_built:
        print(f"tests on Linux {series} ... skipped, it is not built (scripts/kernel --build {series})")
        tally.counts[2] += 1
    return report(tally)


def report(tally):
    slowest = sorted(tally.secs_of_tests.items(), key=lambda item: -item[1])[:SLOWEST_SHOWN]
    if slowest:
        print(SLOWEST + ", ".join(f"{test} {secs:.0f} s" for test, secs in slowest))
    for name in tally.next_attempts:
        print(f"{ANOTHER}{name}")
    for name in tally.failed_parts:
        print(f"failed: {name}")
    passed, failed, skipped = tally.counts
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or tally.failed_parts else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, vmrun.VmError, OSError, subprocess.SubprocessError) as error:
        print(f"test: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
