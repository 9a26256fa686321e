# SPDX-License-Identifier: GPL-2.0-only
"""Bare roots of Debian releases, made by mmdebstrap from the mirror that this machine's apt uses.

Owns <cache>/roots: a tarball for each release and set of packages, for as long as both are asked for. They
are made and entered by root only.
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile

import kernels

PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TERM": "dumb"}


class RootError(Exception):
    """What failed, on what, and what to try."""


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    return done.returncode, done.stdout


def cannot():
    """Why no root can be made here, if so."""
    if os.geteuid() or not shutil.which("mmdebstrap"):
        return "takes root, and mmdebstrap"
    return None


def make(release, packages):
    """The tarball of a root of a release with these packages, from the cache if it is there."""
    packages = ",".join(packages)
    key = hashlib.sha256(f"{release} {packages}".encode()).hexdigest()[:12]
    tar = kernels.cache_dir() / "roots" / f"{release}-{key}.tar"
    if tar.exists():
        return tar
    tar.parent.mkdir(parents=True, exist_ok=True)
    new = tar.with_suffix(".new.tar")
    _, config = run("apt-config", "dump")
    options = [line for line in config.splitlines() if re.match(r"Acquire::(Check|Retries|https?::)", line)]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as conf:
        conf.write("\n".join(options) + "\n")
        conf.flush()
        status, out = run(
            "mmdebstrap", "--mode=auto", "--variant=minbase", f"--include={packages}", f"--aptopt={conf.name}",
            f"--keyring={kernels.KEYRING}", release, new, kernels.mirror(),
        )  # fmt: skip
    if status:
        new.unlink(missing_ok=True)
        raise RootError(f"mmdebstrap {release}:\n{out[-3000:]}")
    new.rename(tar)
    return tar


def unpack(tar, folder):
    status, out = run("tar", "-xf", tar, "-C", folder, "--exclude=./dev/*")
    if status:
        raise RootError(f"{tar}: {out}")


def words_within(root, *command):
    """A command as on that machine, without its devices and kernel's file systems."""
    return ["chroot", str(root), "env", "-i", *(f"{name}={value}" for name, value in PLAIN.items()), *map(str, command)]


def within(root, *command):
    return run(*words_within(root, *command))
