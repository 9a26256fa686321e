# SPDX-License-Identifier: GPL-2.0-only
"""Runs the fuzzers of fuzz/: each target for some time, one after the other, at the lowest priority.

They are built by the stable compiler: LLVM's own pass puts the counters in that libFuzzer reads
(SANCOV). What a fuzzer collects stays in the cache folder, and the next run begins with it; what breaks a
target goes there, too, and is shown. fuzz/seeds/ is what everybody's runs begin with, and what tests/fuzz.rs
reads without a fuzzer: --keep chooses the part that --keep's number allows.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import kernels
import project

FUZZ = project.ROOT / "fuzz"
TRIPLE = "x86_64-unknown-linux-gnu"
SANCOV = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
]
# bytes of one input, where the default of 4096 is too few
LONG = {"recording": 16384, "elf": 8192}
# what one input may take: seconds, and MiB of the whole process
INPUT_SECS = 10
MEMORY_MIB = 1024
# an input that is kept has no more bytes
KEPT_MAX = 8192


def targets():
    return [path.stem for path in sorted((FUZZ / "fuzz_targets").glob("*.rs"))]


def folder(*names):
    path = kernels.cache_dir().joinpath("fuzz", *names)
    path.mkdir(parents=True, exist_ok=True)
    return path


def build():
    project.say("building the fuzzers (some minutes the first time)")
    env = os.environ | {"RUSTFLAGS": " ".join(SANCOV), "CXX": "clang++-19"}
    command = ["cargo", "build", "--release", "--locked", "--manifest-path", FUZZ / "Cargo.toml", "--target", TRIPLE, "--target-dir", folder("target")]
    # in the checkout: its .cargo/config.toml names the clang for BPF
    if subprocess.run(command, env=env, cwd=project.ROOT).returncode:
        raise project.Failure("the fuzzers were not built; what cargo says above tells why")
    return folder("target") / TRIPLE / "release"


def seeds(target):
    return FUZZ / "seeds" / target


def limits(target):
    return [f"-max_len={LONG.get(target, 4096)}", f"-timeout={INPUT_SECS}", f"-rss_limit_mb={MEMORY_MIB}"]


def cpu_secs():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(binary, target, secs):
    """Runs one fuzzer; returns what it found, as files."""
    broken = folder("broken", target)
    before = set(broken.iterdir())
    began = cpu_secs()
    # what is read says what is wrong with it: thousands of times
    command = ["nice", "-n", "19", binary, folder("corpus", target), seeds(target), *limits(target), f"-max_total_time={secs}", f"-artifact_prefix={broken}/", "-print_final_stats=1", "-close_fd_mask=3"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    text = done.stdout.decode(errors="replace")
    executions = re.findall(r"^stat::number_of_executed_units: (\d+)", text, re.M) or re.findall(r"^#(\d+)", text, re.M) or ["0"]
    reached = re.findall(r" cov: (\d+) ft: (\d+)", text) or [("0", "0")]
    found = sorted(set(broken.iterdir()) - before)
    print(f"{target}: {executions[-1]} executions, {cpu_secs() - began:.0f} s of CPU, {reached[-1][0]} places and {reached[-1][1]} features reached, "
          f"{len(list(folder('corpus', target).iterdir()))} inputs, {len(found)} findings", flush=True)  # fmt: skip
    if done.returncode and not found:
        raise project.Failure(f"{target}: the fuzzer itself failed:\n{text[-3000:]}")
    for path in found:
        again = subprocess.run([binary, *limits(target), path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = again.stdout.decode(errors="replace").splitlines()
        print(f"{target}: {path}", *(f"  | {line}" for line in said[-40:]), sep="\n", flush=True)
    return found


def keep(binary, target, number):
    """Adds to the seeds what reaches most in a few inputs. Those with a name stay: they are there for a reason."""
    into = seeds(target)
    with tempfile.TemporaryDirectory() as tmp:
        # the greediest choice first: files are written in that order
        command = [binary, "-set_cover_merge=1", f"-max_len={KEPT_MAX}", tmp, into, folder("corpus", target)]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        chosen = sorted(Path(tmp).iterdir(), key=lambda path: path.stat().st_mtime_ns)[:number]
        for path in into.iterdir():
            if re.fullmatch(r"[0-9a-f]{40}", path.name):
                path.unlink()
        named = {path.read_bytes() for path in into.iterdir()}
        for path in chosen:
            if path.read_bytes() not in named:
                shutil.copyfile(path, into / path.name)
    kept = list(into.iterdir())
    print(f"{target}: {len(kept)} seeds, {sum(path.stat().st_size for path in kept)} bytes", flush=True)


def parse(argv):
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Runs the fuzzers of fuzz/, one after the other. Exits 0 if nothing was found.")
    parser.add_argument("target", nargs="*", help=f"only these: {', '.join(targets())}")
    parser.add_argument("--secs", type=int, default=60, metavar="N", help="seconds for each (60)")
    parser.add_argument("--keep", type=int, metavar="N", help="then put the N inputs that reach most of each target into fuzz/seeds/")
    return parser.parse_args(argv)


def main(argv):
    args = parse(argv)
    unknown = set(args.target) - set(targets())
    if unknown:
        raise project.Failure(f"no fuzzer is called {', '.join(sorted(unknown))}; there are {', '.join(targets())}")
    release = build()
    began, found = time.monotonic(), []
    for target in args.target or targets():
        if args.secs:
            found += fuzz(release / target, target, args.secs)
        if args.keep:
            keep(release / target, target, args.keep)
    print(f"{time.monotonic() - began:.0f} s, {len(found)} findings", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (project.Failure, kernels.KernelError, OSError, subprocess.SubprocessError) as error:
        print(f"fuzz: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
