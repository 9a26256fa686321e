# SPDX-License-Identifier: GPL-2.0-only
"""Owns the works that scripts/bench measures: what each runs, and what it reads off.

The host asks what there is. In the guest this is the program that does one: it prints one JSON object, metric to value.
usage: bench_works.py RELEASE_DIR SECS_SCALE WORK
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SECS_MIN = 0.2
LOWER, HIGHER = "lower", "higher"

# what is better of a metric, by the unit that it ends in
BETTER = {"s": LOWER, "ms": LOWER, "us": LOWER, "%": LOWER, "/s": HIGHER}


def better(metric):
    return BETTER[metric.rpartition(", ")[2]]


@dataclasses.dataclass
class Guest:
    """Where a work runs."""

    release: Path
    scale: float

    def __post_init__(self):
        self.cpus = len(os.sched_getaffinity(0))

    def secs(self, secs):
        return f"{max(SECS_MIN, secs * self.scale):g}"

    def count(self, count):
        return str(max(1, round(count * self.scale)))

    def schedload(self, load, secs, *args):
        command = [self.release / "schedload", load, "--secs", self.secs(secs), "--settle", self.secs(0.5), *args]
        return json.loads(output(command))


def output(command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{command[0]} exits with {done.returncode}: {done.stdout.strip()[-300:]}")
    return done.stdout


def found(pattern, text):
    """The number that the pattern's group is."""
    match = re.search(pattern, text, re.MULTILINE)
    if not match:
        raise RuntimeError(f"there is no {pattern!r} in: {text.strip()[-300:]}")
    return float(match[1])


def percentiles(what, micros):
    """p50 and p99 of a summary of schedload; nothing if it had no samples."""
    if not micros["samples"]:
        return {}
    return {f"{what} p50, us": micros["p50_us"], f"{what} p99, us": micros["p99_us"]}


def hackbench(*args):
    def run(guest):
        loops = guest.count(100)
        return {"time, s": found(r"^Time: ([\d.]+)", output(["hackbench", *args, "-l", loops]))}

    return run


def perf_pipe(guest):
    return {"round trip, us": found(r"([\d.]+) usecs/op", output(["perf", "bench", "sched", "pipe", "-l", guest.count(10_000)]))}


def pipe(*args):
    return lambda guest: {"round trips, /s": guest.schedload("pipe", 1, *args)["pipe"]["rounds_per_sec"]}


def histogram_percentile(histogram, percent):
    """Of {us: how many}."""
    rest = sum(histogram.values()) * percent / 100
    for us in sorted(histogram, key=int):
        rest -= histogram[us]
        if rest <= 0:
            return float(us)
    raise RuntimeError("cyclictest woke never")


def cyclictest_metrics(report):
    """Of its threads together; what lies beyond the histogram is in the largest."""
    threads = report["thread"].values()
    histogram = {}
    for thread in threads:
        for us, times in thread["histogram"].items():
            histogram[us] = histogram.get(us, 0) + times
    return {
        "lateness p50, us": histogram_percentile(histogram, 50),
        "lateness p99, us": histogram_percentile(histogram, 99),
        "lateness max, us": float(max(thread["max"] for thread in threads)),
    }


def cyclictest(spinners_a_cpu):
    def run(guest):
        spinners = None
        secs = float(guest.secs(2))
        if spinners_a_cpu:
            command = [guest.release / "schedload", "spin", "--spec", str(spinners_a_cpu * guest.cpus), "--secs", "3600"]
            spinners = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
        try:
            # cyclictest counts seconds, so it is told how many sleeps
            loops, micros = str(round(secs * 1000)), "1000"
            with tempfile.NamedTemporaryFile() as report:
                command = ["cyclictest", "--policy=other", "--priority=0", "-m", "-q", "-t", str(guest.cpus), "-i", micros, "-d", "0"]
                output([*command, "-l", loops, "-h", "200000", f"--json={report.name}"])
                return cyclictest_metrics(json.load(report))
        finally:
            if spinners:
                spinners.kill()
                spinners.wait()

    return run


def requests(load):
    def run(guest):
        report = guest.schedload("requests", 2, "--load", str(load))["requests"]
        return {
            "rate, /s": report["requests_per_sec"],
            **percentiles("wakeup", report["wakeup"]),
            **percentiles("messenger", report["messenger"]),
            **percentiles("request", report["request"]),
        }

    return run


def frames(guest):
    report = guest.schedload("frames", 3, "--jobs", str(2 * guest.cpus))
    return {
        **percentiles("frame", report["frames"]["frame"]),
        "late frames, %": 100 * report["frames"]["late_share"],
        "jobs beside, /s": report["forks"]["forks_per_sec"],
    }


def forks(guest):
    return {"forks, /s": guest.schedload("forks", 1, "--child-us", "100", "--jobs", str(2 * guest.cpus))["forks"]["forks_per_sec"]}


def execs(guest):
    """Shells that start a program again and again, two a CPU."""
    loop = f"i=0; while [ $i -lt {guest.count(20)} ]; do /bin/true; i=$((i + 1)); done"
    command = f"""t=$(date +%s%N); for j in $(seq {2 * guest.cpus}); do sh -c '{loop}' & done; wait; echo $(($(date +%s%N) - t))"""
    return {"time, s": float(output(["sh", "-c", command])) / 1e9}


def sysbench(test, pattern, metric, *args):
    return lambda guest: {metric: found(pattern, output(["sysbench", test, *[arg(guest) for arg in args], "run"]))}


TOTAL = r"^ *total time: *([\d.]+)s$"


def fixed(text):
    return lambda guest: text


def futex_wake(guest):
    threads = 4 * guest.cpus
    text = output(["perf", "bench", "-r", "1", "futex", "wake", "-t", str(threads)])
    return {"all woken, ms": found(rf"^Wokeup {threads} of {threads} threads in ([\d.]+) ms", text)}


def futex_pi(guest):
    text = output(["perf", "bench", "-r", "1", "futex", "lock-pi", "-r", "1", "-t", str(2 * guest.cpus)])
    return {"locked, /s": found(r"^Averaged ([\d.]+) operations/sec", text)}


def produce(guest):
    pairs = max(1, guest.cpus * 3 // 4)
    return {"items, /s": guest.schedload("produce", 1, "--pairs", str(pairs))["produce"]["items_per_sec"]}


@dataclasses.dataclass
class Work:
    about: str
    run: object
    program: str = None  # that must be there


WORKS = {
    "hackbench-pipes": Work("hackbench -p -g 4", hackbench("-p", "-g", "4"), "hackbench"),
    "hackbench-sockets": Work("hackbench -g 2", hackbench("-g", "2"), "hackbench"),
    "hackbench-threads": Work("hackbench -T -p -g 2", hackbench("-T", "-p", "-g", "2"), "hackbench"),
    "perf-pipe": Work("perf bench sched pipe", perf_pipe, "perf"),
    "pipe": Work("ping-pong of a pair that may run anywhere", pipe()),
    "pipe-one-cpu": Work("ping-pong of a pair on CPU 0", pipe("--cpus", "0")),
    "cyclictest": Work("cyclictest, SCHED_OTHER, a thread a CPU, idle machine", cyclictest(0), "cyclictest"),
    "cyclictest-1": Work("the same beside a spinner a CPU", cyclictest(1), "cyclictest"),
    "cyclictest-2": Work("the same beside two spinners a CPU", cyclictest(2), "cyclictest"),
    "requests-50": Work("requests of 2 ms that take half of the CPUs, two workers a CPU", requests(50)),
    "requests-100": Work("the same, all of the CPUs", requests(100)),
    "requests-150": Work("the same, half as much again; a third is lost", requests(150)),
    "frames": Work("three stages of 2 ms a frame of 16 ms, beside two jobs a CPU of 20 ms a child", frames),
    "forks": Work("two forkers a CPU, children of 0.1 ms", forks),
    "execs": Work("two shells a CPU that start a program again and again", execs),
    "sysbench-cpu": Work(
        "sysbench cpu, a thread a CPU",
        sysbench("cpu", TOTAL, "time, s", lambda g: f"--threads={g.cpus}", fixed("--cpu-max-prime=2000"), lambda g: f"--events={g.count(10_000)}", fixed("--time=0")),
        "sysbench",
    ),
    "sysbench-threads": Work(
        "sysbench threads, four threads a CPU, 4 mutexes",
        sysbench("threads", TOTAL, "time, s", lambda g: f"--threads={4 * g.cpus}", fixed("--thread-locks=4"), fixed("--thread-yields=50"), lambda g: f"--events={g.count(1000)}", fixed("--time=0")),
        "sysbench",
    ),
    "sysbench-mutex": Work(
        "sysbench mutex, two threads a CPU at one pthread mutex",
        sysbench("mutex", TOTAL, "time, s", lambda g: f"--threads={2 * g.cpus}", fixed("--mutex-num=1"), lambda g: f"--mutex-locks={g.count(100_000)}", fixed("--mutex-loops=100")),
        "sysbench",
    ),
    "futex-wake": Work("perf bench futex wake, four threads a CPU", futex_wake, "perf"),
    "futex-pi": Work("perf bench futex lock-pi, two threads a CPU, 1 s", futex_pi, "perf"),
    "produce": Work("three pairs for four CPUs of a producer and a consumer that both compute for 0.5 ms", produce),
}


def missing(work):
    """The program that it lacks here, or None."""
    program = WORKS[work].program
    return program if program and not shutil.which(program) else None


def main(argv):
    release, scale, work = argv
    try:
        values = WORKS[work].run(Guest(Path(release), float(scale)))
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        print(f"{work}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(values))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
