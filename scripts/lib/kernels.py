# SPDX-License-Identifier: GPL-2.0-only
"""Debian kernels, by series.

Owns <cache>/kernels/<version>/ (boot/vmlinuz-<version>, boot/config-<version>,
lib/modules/<version>, source.json) and <cache>/apt (lists and archives of its
own). Those that are built of Debian's source come from kernel_build.py. A kernel
appears there by rename, so what is there is whole.

The packages are fetched and verified by apt with a sources list of our own
that holds one suite, bound to Debian's archive keyring. The machine's apt
configuration is read (mirror, proxies) and never changed.
"""

import fcntl
import functools
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

MATRIX = Path(__file__).resolve().parent.parent / "kernels.toml"
CONFIGS = MATRIX.with_name("configs")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_MAX_AGE_SECS = 24 * 3600
SPACE_NEEDED_MB = 500

# The header of an image of x86, by offset.
HEADER_MAGIC = 0x202
VERSION_POINTER = 0x20E
HEADER_END = 0x210
SECTOR_BYTES = 0x200  # the pointer counts from behind the first sector
VERSION_MAX = 256

# What scripts/test boots, where a series says nothing else.
MACHINE = {"cpus": 4, "threads": 1, "cpus_max": None, "append": [], "memory": "2G", "virtual_time": False, "even_us": None, "boot_secs": None}

# What virtme-ng's initramfs loads with a plain insmod, which cannot read .xz.
INITRAMFS_MODULES = ("overlay", "virtio_mmio")


class KernelError(Exception):
    """What failed, on what, and what to try."""


def say(text):
    print(f"kernel: {text}", file=sys.stderr, flush=True)


def cache_dir():
    """The same folder as in scripts/setup, which checks that it is usable."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.environ.get("HOME") or "/root", ".cache")
    return Path(os.path.realpath(os.environ.get("SCX_PROXY_CACHE") or os.path.join(base, "scx_proxy")))


@functools.cache
def matrix():
    """series name -> its table, with what it leaves out filled in."""
    data = tomllib.loads(MATRIX.read_text())
    defaults = {"suite": data["suite"], "flavour": data["flavour"], "build": None, "tests": "none", "note": "", "stress_secs": 60, "apart": [], "threads_of_its_own": False} | MACHINE
    tables = {name: defaults | {"series": name, "version": name} | table for name, table in data["series"].items()}
    for table in tables.values():
        table["flavour"] = table["build"] or table["flavour"]
    return {name: {"all": table["tests"]} | table for name, table in tables.items()}


def entry(name):
    try:
        return matrix()[name]
    except KeyError:
        known = ", ".join(matrix())
        raise KernelError(f"unknown kernel series '{name}'; known are {known} (scripts/kernels.toml)") from None


def machine(table):
    """In words: which machine scripts/test boots for a series."""
    cpus = "1 CPU" if table["cpus"] == 1 else f"{table['cpus']} CPUs"
    parts = [cpus, table["memory"], *table["append"]]
    if table["threads"] > 1:
        parts.insert(1, f"{table['threads']} threads a core")
    if table["cpus_max"]:
        parts.insert(1, f"room for {table['cpus_max']}")
    if table["virtual_time"]:
        parts.append("virtual time, even" if table["even_us"] else "virtual time")
    return ", ".join(parts)


def version_of(kernel):
    """Of a kernel's folder, which is called that; of an image, from its header."""
    kernel = Path(kernel)
    return kernel.name if kernel.is_dir() else version_in(kernel)


def version_in(image):
    """What an image of x86 says in the header that boot loaders read (Documentation/arch/x86/boot.rst)."""
    try:
        with open(image, "rb") as file:
            head = file.read(HEADER_END)
            if head[HEADER_MAGIC : HEADER_MAGIC + 4] != b"HdrS":
                raise KernelError(f"{image} is no kernel image of x86 (bzImage)")
            file.seek(int.from_bytes(head[VERSION_POINTER : VERSION_POINTER + 2], "little") + SECTOR_BYTES)
            text = file.read(VERSION_MAX).split(b"\0")[0].decode(errors="replace")
    except OSError as error:
        raise KernelError(f"{image} cannot be read: {error.strerror}") from None
    if not text.split():
        raise KernelError(f"{image} does not say its version")
    return text.split()[0]


def own_image(path):
    """A kernel of the user's: an image, and what lies around it. Nothing is fetched."""
    image = Path(os.path.realpath(path))
    say(f"{image} is Linux {version_in(image)}")
    return image


def image_of(kernel):
    return kernel if kernel.is_file() else kernel / "boot" / f"vmlinuz-{kernel.name}"


def config_of(kernel):
    """The kernel's configuration, or None: then it may have it inside (CONFIG_IKCONFIG_PROC)."""
    if kernel.is_dir():
        return kernel / "boot" / f"config-{kernel.name}"
    version = version_in(kernel)
    places = [
        kernel.parent / f"config-{version}",
        Path(f"/lib/modules/{version}/config"),
        # it stands in the tree where it was built: arch/x86/boot/bzImage
        *(folder / ".config" for folder in kernel.parents[2:3]),
    ]
    return next((place for place in places if place.is_file()), None)


def newest(versions):
    """The highest by dpkg's rules: 6.18.9 is older than 6.18.15, ~rc1 older than nothing."""

    def order(a, b):
        return 1 if subprocess.run(["dpkg", "--compare-versions", a, "gt", b]).returncode == 0 else -1

    return max(versions, key=functools.cmp_to_key(order), default=None)


def version_pattern(table):
    """Full versions of the series: no dash before the flavour, or "amd64" would take "rt-amd64" too, but for the
    number of the ABI that Debian 12 has there (6.1.0-42-amd64)."""
    return rf"{re.escape(table['version'])}\.\d+[^\s-]*(?:-\d+)?-{re.escape(table['flavour'])}"


def cached(name):
    """The newest cached kernel of a series, or None."""
    pattern = re.compile(version_pattern(entry(name)))
    root = cache_dir() / "kernels"
    found = [d.name for d in root.glob("*") if pattern.fullmatch(d.name)] if root.is_dir() else []
    return root / newest(found) if found else None


# ---- apt, with folders of its own ----


def mirror():
    """The Debian mirror that this machine's apt is configured with."""
    if os.environ.get("SCX_PROXY_DEBIAN_MIRROR"):
        return os.environ["SCX_PROXY_DEBIAN_MIRROR"]
    listing = run_apt(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"],
        "read the machine's apt configuration",
    )
    for line in listing.splitlines():
        uri, _, release = line.partition(" ")
        # "debian-security" and third parties do not carry the backports
        if re.search(r"/debian/?$|/debian\.list$", uri) and "security" not in release:
            return uri
    raise KernelError(
        "no Debian mirror in this machine's apt configuration; name one: SCX_PROXY_DEBIAN_MIRROR=http://HOST/debian"
    )


def run_apt(command, doing, cwd=None):
    try:
        done = subprocess.run(command, cwd=cwd, text=True, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError as error:
        raise KernelError(f"cannot {doing}: {command[0]} is not there (Debian's apt is needed)") from error
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("Ign:", "Reading"))]
        tail = "\n".join("  | " + line for line in lines[-6:])
        raise KernelError(f"cannot {doing}; {command[0]} says:\n{tail}")
    return done.stdout


class Apt:
    """apt with its own sources, lists, archives and preferences for one suite."""

    def __init__(self, suite):
        self.suite = suite
        self.dir = cache_dir() / "apt" / suite
        (self.dir / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (self.dir / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (self.dir / "etc").mkdir(exist_ok=True)
        self.stamp = self.dir / "updated"
        self.options = []
        for key, value in {
            "Dir::Etc::sourcelist": self.dir / "etc" / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": self.dir / "lists",
            "Dir::Cache": self.dir,
            "Dir::Cache::archives": self.dir / "archives",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Update::Error-Mode": "any",
            # The user _apt cannot write a folder under somebody's home.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }.items():
            self.options += ["-o", f"{key}={value}"]

    def update(self, refresh):
        """Fetch the package lists unless they are a day old at most."""
        source = f"deb [signed-by={KEYRING}] {mirror()} {self.suite} main\n"
        sources = self.dir / "etc" / "sources.list"
        same = sources.exists() and sources.read_text() == source
        fresh = self.stamp.exists() and time.time() - self.stamp.stat().st_mtime < LISTS_MAX_AGE_SECS
        if same and fresh and not refresh:
            return
        if not os.path.exists(KEYRING):
            raise KernelError(f"{KEYRING} is not there; install debian-archive-keyring (scripts/setup does)")
        say(f"reading the package lists of {self.suite}")
        self.stamp.unlink(missing_ok=True)
        sources.write_text(source)
        run_apt(["apt-get", *self.options, "update"], f"read the package lists of {self.suite}")
        self.stamp.touch()

    def names(self):
        return run_apt(["apt-cache", *self.options, "pkgnames", "linux-"], "list packages").split()

    def download(self, packages, into):
        run_apt(["apt-get", *self.options, "download", *packages], f"download {' '.join(packages)}", cwd=into)


# ---- from packages to a kernel folder ----


def find_packages(table, names):
    """The newest kernel's version and the packages that hold it.

    Debian moved things around: linux-image-<v> was everything until 6.18; from
    6.19 on the image is in linux-binary-<v>, modules in linux-modules-<v> and
    the config in linux-base-<v>. So take what there is of that version and look
    for the files in it.
    """
    pattern = re.compile(rf"linux-(?:binary|image)-({version_pattern(table)})")
    version = newest({m[1] for m in map(pattern.fullmatch, names) if m})
    if version is None:
        raise KernelError(f"no {table['version']} kernel ({table['flavour']}) in {table['suite']}")
    image = "binary" if f"linux-binary-{version}" in names else "image"
    packages = [f"linux-{part}-{version}" for part in (image, "modules", "base")]
    return version, [package for package in packages if package in names]


def first_of(root, *patterns):
    for pattern in patterns:
        for path in root.glob(pattern):
            return path
    # A superseded version's modules and config leave the suite before its (signed) image does.
    raise KernelError(f"the suite's packages of this version are not complete: none holds {' or '.join(patterns)}")


def lay_out(unpacked, version, target):
    """Build target/{boot,lib/modules/<version>} from whatever layout the packages have."""
    modules = first_of(unpacked, f"usr/lib/modules/{version}", f"lib/modules/{version}")
    image = first_of(unpacked, f"boot/vmlinuz-{version}", f"*/lib/modules/{version}/vmlinuz", f"lib/modules/{version}/vmlinuz")
    config = first_of(unpacked, f"boot/config-{version}", f"*/lib/modules/{version}/config", f"lib/modules/{version}/config")
    (target / "boot").mkdir(parents=True)
    (target / "lib" / "modules").mkdir(parents=True)
    shutil.move(image, target / "boot" / f"vmlinuz-{version}")
    shutil.move(config, target / "boot" / f"config-{version}")
    shutil.move(modules, target / "lib" / "modules" / version)
    decompress_modules(target / "lib" / "modules" / version)
    run_apt(["/sbin/depmod", "-b", str(target), version], "index the kernel's modules")


def decompress_modules(modules):
    for name in INITRAMFS_MODULES:
        for packed in list(modules.rglob(f"{name}.ko.xz")):
            packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
            packed.unlink()


def install(apt, table, version, packages):
    root = cache_dir() / "kernels"
    root.mkdir(parents=True, exist_ok=True)
    free_mb = shutil.disk_usage(root).free >> 20
    if free_mb < SPACE_NEEDED_MB:
        raise KernelError(f"no space: {root} has {free_mb} MB free, a kernel needs {SPACE_NEEDED_MB} MB for a while")
    say(f"fetching {version} (about 40 MB): {' '.join(packages)}")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=root) as tmp:
        debs, unpacked, target = (Path(tmp) / part for part in ("debs", "unpacked", "target"))
        debs.mkdir()
        apt.download(packages, debs)
        for deb in sorted(debs.glob("*.deb")):
            run_apt(["dpkg-deb", "-x", str(deb), str(unpacked)], f"unpack {deb.name}")
        lay_out(unpacked, version, target)
        source = {"suite": table["suite"], "packages": sorted(deb.name for deb in debs.glob("*.deb"))}
        (target / "source.json").write_text(json.dumps(source, indent=1) + "\n")
        target.rename(root / version)
    say(f"{version} is there after {time.monotonic() - start:.0f} s")
    return root / version


def configs(table):
    """What a kernel that is built has of its own, by file: the configuration that it was built of."""
    return {name: (CONFIGS / f"{name}.config").read_text() for name in ("guest", table["build"])}


def built(name):
    """The folder of a kernel that scripts/kernel --build has built."""
    have = cached(name)
    if have is None:
        raise KernelError(f"{name} is built of Debian's source, not fetched, and is not there: scripts/kernel --build {name}")
    if json.loads((have / "source.json").read_text())["configs"] != configs(entry(name)):
        say(f"{have.name} was built of another configuration than scripts/configs has now; scripts/kernel --build {name} builds it again")
    return have


def ensure(name, refresh=False, offline=False):
    """The folder of the newest kernel of a series, fetched when it is not cached.

    Without a network a cached kernel of the series serves, and that is said.
    """
    table = entry(name)
    if table["build"]:
        return built(name)
    have = cached(name)
    if offline:
        if have is None:
            raise KernelError(f"no {name} kernel is cached, and --offline forbids fetching one")
        return have
    cache_dir().mkdir(parents=True, exist_ok=True)
    with open(cache_dir() / "kernels.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            apt = Apt(table["suite"])
            apt.update(refresh)
            version, packages = find_packages(table, apt.names())
            path = cache_dir() / "kernels" / version
            return path if path.is_dir() else install(apt, table, version, packages)
        except KernelError as error:
            have = cached(name)
            if have is None:
                raise KernelError(f"{error}\nwithout a network only a cached kernel could serve, and none is") from None
            say(f"{error}")
            say(f"going on with the cached {version_of(have)}")
            return have
