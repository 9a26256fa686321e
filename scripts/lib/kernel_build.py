# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that Debian does not have, built of its linux-source packages: with the kernel's own checks on, and with
mainline's proxy execution.

The compiler is that of a bare root of Debian's stable release (roots.py), so that no machine needs one, and a
newer pahole than its own: BTF of an older one lacks what sched_ext is loaded by. Owns the work folder
<cache>/run/<random>, which is gone in the end, and <cache>/source (the packages).

A configuration is x86_64_defconfig, kvm_guest.config, scripts/configs/guest.config and that of the build, in this
order. What a build's own file asks for, it has, or there is no kernel.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import kernels
import roots
from kernels import KernelError, say

TOOLCHAIN_RELEASE = "trixie"
TOOLCHAIN = ("build-essential", "flex", "bison", "bc", "libelf-dev", "libssl-dev", "openssl", "pahole", "kmod", "cpio", "rsync", "xz-utils", "python3", "perl-base", "zstd")
SPACE_NEEDED_MB = 10_000
SIGN_OF_LIFE_SECS = 30
LOG_TAIL_LINES = 15
ASKED = re.compile(r"^(?:(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set)$", re.M)
COMPILED = re.compile(r"^\s+(?:CC|AS|LD)\s", re.M)
# The file systems of a root in which a compiler works, gone with the process.
MOUNTED = """
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
exec "$@"
"""


def asked_for(text):
    """The options of a configuration, with their values; n for what is not set."""
    return {m[1] or m[3]: m[2] if m[1] else "n" for m in ASKED.finditer(text)}


def missing(config, wanted):
    """What is wanted and not there: an option that another one it depends on lacks, or that this kernel has not."""
    have = asked_for(config)
    return [f"{option}={value}" for option, value in wanted.items() if have.get(option, "n") != value]


def source(table, refresh):
    """Debian's package of a version's source."""
    apt = kernels.Apt(table["suite"])
    apt.update(refresh)
    folder = kernels.cache_dir() / "source"
    folder.mkdir(exist_ok=True)
    name = f"linux-source-{table['version']}"
    if name not in apt.names():
        raise KernelError(f"no {name} in {table['suite']}")
    uri = kernels.run_apt(["apt-get", *apt.options, "download", "--print-uris", name], f"find {name}")
    deb = folder / uri.split()[1]
    if not deb.exists():
        say(f"fetching {deb.name} (about 170 MB)")
        for older in folder.glob(f"{name}_*.deb"):
            older.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as tmp:
            apt.download([name], tmp)
            next(Path(tmp).glob("*.deb")).rename(deb)
    return deb


class Toolchain:
    """A root with a compiler and the source in it."""

    def __init__(self, root):
        self.root = Path(root)
        roots.unpack(roots.make(TOOLCHAIN_RELEASE, TOOLCHAIN), root)

    def unpack_source(self, deb):
        """Returns its folder, as seen inside."""
        with tempfile.TemporaryDirectory(dir=self.root) as tmp:
            kernels.run_apt(["dpkg-deb", "-x", str(deb), tmp], f"unpack {deb.name}")
            (tar,) = Path(tmp).glob("usr/src/linux-source-*.tar.xz")
            kernels.run_apt(["tar", "-xf", str(tar), "-C", str(self.root / "usr/src")], f"unpack {tar.name}")
        return f"/usr/src/{tar.name.removesuffix('.tar.xz')}"

    def command(self, words):
        return ["unshare", "--mount", "sh", "-ec", MOUNTED, str(self.root), *roots.words_within(self.root, *words)]

    def run(self, doing, *words):
        done = subprocess.run(self.command(words), text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise KernelError(f"cannot {doing}:\n{tail(done.stdout)}")
        return done.stdout

    def run_long(self, doing, *words):
        """With a sign of life now and then."""
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(self.command(words), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
            try:
                while True:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(SIGN_OF_LIFE_SECS)
                        break
                    log.seek(0)
                    say(f"    ... {len(COMPILED.findall(log.read()))} files, {time.monotonic() - started:.0f} s")
            finally:
                # compilers are children of children
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.seek(0)
            if process.returncode:
                raise KernelError(f"cannot {doing}:\n{tail(log.read())}")


def tail(text):
    return "\n".join("  | " + line for line in text.splitlines()[-LOG_TAIL_LINES:])


def configure(tools, src, table):
    """Makes /build/.config inside."""
    texts = kernels.configs(table)
    out = tools.root / "build"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name, text in texts.items():
        (out / f"{name}.part").write_text(text)
    make = ["make", "-C", src, "O=/build"]
    tools.run("configure", *make, "x86_64_defconfig", "kvm_guest.config")
    merge = f"cd /build && {src}/scripts/kconfig/merge_config.sh -m -O . .config guest.part {table['build']}.part"
    tools.run("merge the configurations", "sh", "-ec", merge)
    tools.run("configure", *make, "olddefconfig")
    lacks = missing((out / ".config").read_text(), asked_for(texts[table["build"]]))
    if lacks:
        raise KernelError(f"{table['series']}: this source does not do {', '.join(lacks)} (scripts/configs/{table['build']}.config)")


def build_one(tools, src, deb, table):
    """Configures, compiles, and puts the kernel where fetched ones are."""
    started = time.monotonic()
    configure(tools, src, table)
    make = ["make", "-C", src, "O=/build", f"LOCALVERSION=-{table['build']}", "KBUILD_BUILD_USER=scx_proxy", "KBUILD_BUILD_HOST=scx_proxy"]
    say(f"building {table['series']} on {os.cpu_count()} CPUs")
    tools.run_long("build the kernel", *make, f"-j{os.cpu_count()}", "bzImage", "modules")
    version = tools.run("ask for the version", *make, "-s", "kernelrelease").split()[-1]
    if not re.fullmatch(kernels.version_pattern(table), version):
        raise KernelError(f"{table['series']}: the kernel calls itself {version}, which does not fit the series")
    kernel_root = kernels.cache_dir() / "kernels"
    kernel_root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=kernel_root) as tmp:
        target = Path(tmp) / "target"
        (target / "boot").mkdir(parents=True)
        shutil.copy(tools.root / "build/arch/x86/boot/bzImage", target / "boot" / f"vmlinuz-{version}")
        shutil.copy(tools.root / "build/.config", target / "boot" / f"config-{version}")
        tools.run("install the modules", *make, "INSTALL_MOD_PATH=/build/installed", "INSTALL_MOD_STRIP=1", "modules_install")
        shutil.copytree(tools.root / "build/installed/lib/modules", target / "lib/modules", symlinks=True)
        (target / "lib/modules" / version / "build").unlink(missing_ok=True)
        made_of = {"packages": [deb.name], "configs": kernels.configs(table)}
        (target / "source.json").write_text(json.dumps(made_of, indent=1) + "\n")
        path = kernel_root / version
        if path.exists():
            path.rename(Path(tmp) / "before")
        target.rename(path)
    say(f"{version} is there after {(time.monotonic() - started) / 60:.0f} minutes")
    return path


def build(names, refresh=False):
    """Builds these series one after the other; yields the folder of each."""
    tables = [kernels.entry(name) for name in names]
    for table in tables:
        if not table["build"]:
            raise KernelError(f"{table['series']} is fetched, not built; built are {', '.join(n for n, t in kernels.matrix().items() if t['build'])}")
    if why := roots.cannot():
        raise KernelError(f"to build a kernel {why} (scripts/setup --kernel-builds)")
    run_dir = kernels.cache_dir() / "run"
    run_dir.mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(run_dir).free >> 20
    if free_mb < SPACE_NEEDED_MB:
        raise KernelError(f"no space: {run_dir} has {free_mb} MB free, a build needs {SPACE_NEEDED_MB} MB for a while")
    with tempfile.TemporaryDirectory(dir=run_dir) as root:
        say("unpacking a root with a compiler (made from Debian's packages the first time)")
        os.chmod(root, 0o755)
        tools = Toolchain(root)
        unpacked = {}
        for table in tables:
            if table["version"] not in unpacked:
                deb = source(table, refresh)
                say(f"unpacking {deb.name}")
                unpacked[table["version"]] = (tools.unpack_source(deb), deb)
            src, deb = unpacked[table["version"]]
            yield build_one(tools, src, deb, table)
