# SPDX-License-Identifier: GPL-2.0-only
"""What demo, test and bench share: building, and running a job in a guest.

Emulation has one fault that strikes after a command has started: loading a
scheduler patches the kernel's code (static keys), and QEMU's translator can
leave a CPU on the breakpoint instruction that patching puts there for an
instant. The kernel then dies of "int3" in code that has none. (It drops what it translated before it stores; a CPU that
translates again in between keeps the old code. So do QEMU 7.2 and 10.0.) Such a guest is run again, and that is
reported; nothing else is forgiven. Where the emulated CPUs take turns (vmrun.Job.one_thread) there is no in between.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import vmrun

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
QUICK = ROOT / "target" / "quick"
RUNS_MAX = 4
EMULATION_FAULT = re.compile(r"(?:Oops|kernel BUG|traps): ?int3|int3: 0000 \[#1\]")


class Failure(Exception):
    """What went wrong, for a person; the caller prints it and exits with 1."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def build(*arguments):
    """Build the release binaries; cargo shows its own progress on stderr."""
    say("building scx_proxy (some minutes the first time)")
    if subprocess.run(["cargo", "build", "--bins", *(arguments or ["--release"])], cwd=ROOT).returncode:
        raise Failure("the build failed; what cargo says above tells where")


def build_soon():
    """The folder of the release binaries, where there are some, or else of binaries that are built sooner."""
    if (RELEASE / "scx_proxy").exists():
        build()
        return RELEASE
    # what packages are built without, too; optimised less (Cargo.toml)
    build("--profile", "quick", "--no-default-features")
    return QUICK


def run_guest(job):
    """vmrun.run(), again if emulation itself failed."""
    with tempfile.TemporaryDirectory() as tmp:
        kernel_log = job.kernel_log
        job.kernel_log = kernel_log or Path(tmp) / "kernel.log"
        try:
            for run in range(1, RUNS_MAX + 1):
                outcome = vmrun.run(job)
                log = job.kernel_log.read_text(errors="replace") if job.kernel_log.exists() else ""
                fault = outcome.reason == "died" and outcome.accel == "tcg" and EMULATION_FAULT.search(log)
                if not fault or run == RUNS_MAX:
                    return outcome
                say(f"vm: QEMU's emulation broke the kernel's code patching ({fault[0]}); run {run + 1} of {RUNS_MAX}")
        finally:
            job.kernel_log = kernel_log
    raise AssertionError("unreachable")
