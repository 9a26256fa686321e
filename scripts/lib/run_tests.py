# SPDX-License-Identifier: GPL-2.0-only
"""Every test of the project, one after the other, and one closing line.

Parts: the form of the code and of the rest, the host's tests (cargo), the guest's tests on the
kernels that kernels.toml marks, the VM runner's own tests, a trace in Perfetto's
own parser. A part that fails does not keep the others from running.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import time

import kernels
import project
import vmrun

# of `cargo test` and of tests/guest: test result: ok. 5 passed; 0 failed; 1 ignored; ...
CARGO_RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", re.M)
PLAIN_RESULT = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)
SECOND_ATTEMPT = re.compile(r"^(?:test .*\.\.\. )?second attempt of (\S+),", re.M)
# of tests/guest: a test that begins, and how the one before it ended
GUEST_TEST = re.compile(r"^test (\S+) +\.\.\. ", re.M)
GUEST_RESULT = re.compile(r"(?:^|\.\.\. )(ok|FAILED|ignored)$", re.M)
GUEST_SECS = 2100
# of one list of tests, where the emulation breaks again and again
GUESTS_MAX = 12
SLOWEST_SHOWN = 12


class Tally:
    """What passed, failed and was skipped, and where it failed."""

    def __init__(self):
        self.counts = [0, 0, 0]
        self.failed_parts = []
        self.second_attempts = []
        self.secs_of_tests = {}  # those of guests: name and machine

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


def add(some, more):
    return [a + b for a, b in zip(some, more)]


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
    # the guest's tests come later, where they can run
    status, out = run(["cargo", "test", "--release", "--lib", "--bins", "--test", "cli", "--test", "core", "--test", "cost", "--test", "fuzz", "--test", "interleave", "--test", "model", "--test", "record", "--test", "top"])
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

    def ended(self):
        """The tests that came to their end in a guest that died, and how many (passed, failed, were ignored)."""
        _, *pieces = GUEST_TEST.split(self.text())
        names, outputs = pieces[::2], pieces[1::2]
        results = [GUEST_RESULT.findall("... " + output) for output in outputs[:-1]]
        results = [result[-1] if result else "FAILED" for result in results]
        return names[:-1], [results.count(result) for result in ("ok", "FAILED", "ignored")]


def guest_job(series, table, binary, arguments, out):
    """The machine is the one that kernels.toml names."""
    return vmrun.Job(
        cwd=str(project.ROOT),
        kernel=kernels.ensure(series),
        command=["env", f"SCX_PROXY_STRESS_SECS={table['stress_secs']}", binary, *arguments],
        timeout_secs=GUEST_SECS,
        stdout=out,
        cpus=table["cpus"],
        threads=table["threads"],
        cpus_max=table["cpus_max"],
        append=table["append"],
        memory=table["memory"],
        virtual_time=table["virtual_time"],
        even_us=table["even_us"],
    )


def guest(tally, faults, series, table, binary, only):
    name = f"tests on Linux {series} ({kernels.machine(table)})"
    started = time.monotonic()
    print(f"== {name}", flush=True)
    counts, done, text, ok, alone = [0, 0, 0], [], "", True, None
    try:
        for run in range(1, GUESTS_MAX + 1):
            out = Shown()
            skipped = [word for test in done for word in ("--skip", test)]
            job = guest_job(series, table, binary, [*([alone] if alone else only), "--exact", *skipped], out)
            job.one_thread = bool(alone)
            outcome, fault = project.run_guest_once(job)
            text += out.text()
            tally.secs_of_tests |= {f"{test} on {series}": secs for test, secs in out.secs().items()}
            if not fault or run == GUESTS_MAX:
                counts = add(counts, sums(CARGO_RESULT, out.text()))
                ok = ok and not outcome.status and not outcome.warnings and outcome.powered_off
                if not alone:
                    break
                # the others have threads again
                done, alone = [*done, *out.begun], None
                continue
            # what had ended before the emulation broke has ended
            faults.append(fault)
            names, ended = out.ended()
            done, counts = done + names, add(counts, ended)
            # where it breaks at once again, the test that it breaks in has a guest of its own, without threads
            alone = None if names else next(iter(out.begun), None)
            how = f"{alone} runs" if alone else "the others run"
            print(f"\n{name}: the emulation broke ({fault}); {len(names)} tests had ended, {how} in guest {run + 1}", flush=True)
        else:
            ok = False  # some have not run
    except (kernels.KernelError, vmrun.VmError, OSError) as error:
        print(f"{name}: error: {error}", flush=True)
        tally.part(name, started, [0, 0, 0], False)
        return
    if outcome.retries:
        print(f"{name}: {outcome.retries} of {outcome.boots} boots died early and were tried again")
    for warning in outcome.warnings:
        print(f"{name}: kernel log: {warning}")
    for test in SECOND_ATTEMPT.findall(text):
        tally.second_attempts.append(f"{test} on {series}")
    ok = ok and counts[0] > 0 and not counts[1]
    tally.part(name, started, counts, ok)


def vm_runner(tally):
    started = time.monotonic()
    print("== tests of scripts/vm", flush=True)
    status, out = run([str(project.ROOT / "scripts" / "selftest-vm")], stderr=subprocess.STDOUT)
    tally.part("tests of scripts/vm", started, sums(PLAIN_RESULT, out), not status)


def trace(tally):
    started = time.monotonic()
    print("== a trace in Perfetto's parser", flush=True)
    status, out = run([str(project.ROOT / "scripts" / "check-trace")])
    tally.part("a trace in Perfetto's parser", started, sums(PLAIN_RESULT, out), not status)


def plain(tally, name, program, *arguments):
    """A program of ours that counts its own results."""
    started = time.monotonic()
    print(f"== {name}", flush=True)
    status, out = run([sys.executable, "-B", str(project.ROOT / "scripts" / "lib" / program), *arguments])
    tally.part(name, started, sums(PLAIN_RESULT, out), not status)


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="scripts/test",
        description="Runs all tests: form, host, and on Debian kernels in VMs. Takes about half an hour on two cores "
        "without KVM. Exits 0 if none failed.",
    )
    parser.add_argument("--kernel", action="append", metavar="SERIES", help="only these kernels (repeatable)")
    parser.add_argument("--filter", metavar="TEXT", help="only guest tests whose name holds TEXT (or another: TEXT,TEXT), and nothing else")
    parser.add_argument("--packages", action="store_true", help="only the packages: in bare Debian roots, and in a guest with systemd. Takes root, and about ten minutes")
    return parser.parse_args(argv)


def main(argv):
    args = parse(argv)
    tally, faults = Tally(), []
    if args.packages:
        plain(tally, "packages", "packages.py")
        return report(tally, faults)
    if not args.filter:
        plain(tally, "licence lines, scripts", "house.py")
        check(tally, "format", ["cargo", "fmt", "--check"])
        check(tally, "lints", ["cargo", "clippy", "--release", "--all-targets", "--", "-D", "warnings"])
        host(tally)
        vm_runner(tally)
        trace(tally)
    unknown = set(args.kernel or []) - set(kernels.matrix())
    if unknown:
        raise project.Failure(f"unknown kernel: {', '.join(sorted(unknown))}; scripts/kernel --list shows the known ones")
    binary = guest_binary()
    for series, table in kernels.matrix().items():
        if args.kernel and series not in args.kernel or not args.kernel and table["tests"] == "none":
            continue
        only = args.filter or ",".join(table["tests"] if isinstance(table["tests"], list) else [])
        guest(tally, faults, series, table, binary, [only] if only else [])
    return report(tally, faults)


def report(tally, faults):
    slowest = sorted(tally.secs_of_tests.items(), key=lambda item: -item[1])[:SLOWEST_SHOWN]
    if slowest:
        print("slowest in guests: " + ", ".join(f"{test} {secs:.0f} s" for test, secs in slowest))
    if faults:
        print(f"guests run again because QEMU's emulation broke: {len(faults)}")
    for name in tally.second_attempts:
        print(f"had a second attempt: {name}")
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
