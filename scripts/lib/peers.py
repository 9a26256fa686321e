# SPDX-License-Identifier: GPL-2.0-only
"""Owns the other sched_ext schedulers that scripts/bench compares with: released versions, built once into the cache.

They are built from the registry that cargo is set up for, one after the other, each with the dependencies
that its own lock file names.
"""

import os
import shlex
import subprocess
from pathlib import Path

import kernels
import project

VERSIONS = {"scx_bpfland": "1.1.4", "scx_lavd": "1.1.4", "scx_cosmos": "1.1.7", "scx_flash": "1.1.4"}
CLANG = Path(__file__).with_name("clang")


def folder():
    return kernels.cache_dir() / "peers"


def program(name):
    return folder() / f"{name}-{VERSIONS[name]}" / "bin" / name


def build(name):
    """Returns what went wrong, or None."""
    root, log = program(name).parents[1], folder() / f"{name}.log"
    folder().mkdir(parents=True, exist_ok=True)
    environment = {
        "BPF_CLANG": str(CLANG),
        # dependencies are shared; link time optimization is of no use to what is BPF
        "CARGO_TARGET_DIR": str(folder() / "target"),
        "CARGO_PROFILE_RELEASE_LTO": "off",
    }
    command = ["nice", "-n", "19", "cargo", "install", "--locked", "--jobs", "1", "--root", str(root), "--version", VERSIONS[name], name]
    project.say(f"building {name} {VERSIONS[name]} (long the first time; {log})")
    with log.open("w") as out:
        done = subprocess.run(command, cwd=folder(), env=os.environ | environment, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode == 0:
        return None
    errors = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("error")]
    return f"{shlex.join(command)}: {errors[0] if errors else f'status {done.returncode}'}"


def ensure(names):
    """{name: program} of those that are there or can be built; what is wrong with the others is said."""
    there = {}
    for name in names:
        problem = None if program(name).exists() else build(name)
        if problem:
            project.say(f"bench: {name} {VERSIONS[name]} is left out: {problem}")
        else:
            there[name] = str(program(name))
    return there
