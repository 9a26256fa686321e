# SPDX-License-Identifier: GPL-2.0-only
"""The packages, tested as a user meets them (scripts/test --packages).

The .deb is built, and installed into bare roots of the Debian releases that it is for (roots.py). There it
has to work, and leave nothing when it is purged. Then one of these roots boots, with systemd as init, on a
cached kernel: what happens around the service is in packages_inside.sh. The recipes of other distributions
are linted with what there is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from pathlib import Path

import kernels
import project
import roots
from roots import run, within

RELEASES = ("bookworm", "trixie")
# beside what the package depends on: what a machine has that reads man pages and runs services
AROUND = ("man-db", "systemd", "systemd-sysv", "dbus", "procps", "kmod")
BOOTED = "trixie"
KERNEL = "7.3"
GUEST_SECS = 900
EXPOSURE_MAX = 5.0
INSIDE = Path(__file__).with_name("packages_inside.sh")
# what dpkg itself, ldconfig and man-db keep
OWN_NOTES = re.compile(
    r"^(var/lib/dpkg/|var/log/|var/cache/(man|ldconfig|debconf|apt)/|etc/ld\.so\.cache|tmp/|run/|proc/|sys/|dev/)"
)


class Checks:
    """Counts, and says what failed as it comes."""

    def __init__(self):
        self.counts = [0, 0, 0]

    def check(self, name, ok, why=""):
        self.counts[0 if ok else 1] += 1
        print(f"{'ok     ' if ok else 'FAILED '} {name}", flush=True)
        if not ok and why:
            print("\n".join(f"        | {line}" for line in str(why).strip().splitlines()[-20:]), flush=True)
        return ok

    def skip(self, name, why):
        self.counts[2] += 1
        print(f"skipped {name}: {why}", flush=True)


def files(root):
    """Every path below a root, without what package management notes there for itself."""
    found = set()
    for folder, folders, names in os.walk(root):
        base = os.path.relpath(folder, root)
        for name in folders + names:
            path = os.path.normpath(os.path.join(base, name))
            if not OWN_NOTES.match(path + "/" if name in folders else path):
                found.add(path)
    return found


# ---- the recipes ----


def lint(checks):
    """Each recipe, with the linter that there is for it."""
    root = project.ROOT
    # where scripts/setup puts what it builds
    tools = [str(folder) for folder in sorted(kernels.cache_dir().glob("cargo-deny-*/bin"))]
    os.environ["PATH"] = ":".join([*tools, os.environ["PATH"]])
    for name, tool, command in [
        ("dist/rpm/scx_proxy.spec: rpmspec -P", "rpmspec", ["rpmspec", "-P", root / "dist/rpm/scx_proxy.spec"]),
        ("dist/nix/default.nix: nix-instantiate --parse", "nix-instantiate", ["nix-instantiate", "--parse", root / "dist/nix/default.nix"]),
        # its variables and functions are makepkg's
        ("dist/arch/PKGBUILD: shellcheck", "shellcheck", ["shellcheck", "-s", "bash", "-e", "SC2034,SC2154,SC2164", root / "dist/arch/PKGBUILD"]),
        ("dist/arch/PKGBUILD: namcap", "namcap", ["namcap", root / "dist/arch/PKGBUILD"]),
        ("deny.toml: cargo deny check", "cargo-deny", ["cargo", "deny", "--offline", "check", "bans", "licenses", "sources"]),
        ("deny.toml: cargo deny check, fuzz/", "cargo-deny", ["cargo", "deny", "--manifest-path", "fuzz/Cargo.toml", "check", "--config", "deny.toml", "bans", "licenses", "sources"]),
    ]:
        if not shutil.which(tool):
            checks.skip(name, f"{tool} is not there")
            continue
        status, out = run(*command, cwd=root)
        checks.check(name, not status, out)
    version = tomllib.loads((root / "Cargo.toml").read_text())["package"]["version"]
    for recipe, line in [("arch/PKGBUILD", "pkgver={}"), ("rpm/scx_proxy.spec", "Version:        {}"), ("nix/default.nix", '  version = "{}";')]:
        text = (root / "dist" / recipe).read_text().splitlines()
        checks.check(f"dist/{recipe} is for {version}", line.format(version) in text)


def licences(checks):
    """What is linked goes with the GPL, version 2; deny.toml says which licences do."""
    deny = tomllib.loads((project.ROOT / "deny.toml").read_text())["licenses"]
    allowed = set(deny["allow"])
    exceptions = {e["name"] if "name" in e else e["crate"] for e in deny.get("exceptions", [])}
    status, out = run(sys.executable, "-B", Path(__file__).with_name("sbom.py"), cwd=project.ROOT)
    if not checks.check("sbom.py lists what is linked", not status, out):
        return
    bad = []
    for component in json.loads(out)["components"]:
        expression = component["licenses"][0]["expression"]
        choices = [part.strip(" ()") for part in re.sub(r"\([^)]*\)", lambda m: m[0].replace(" OR ", "|"), expression).split(" OR ")]
        fits = any(all(set(p.strip(" ()").split("|")) & allowed for p in choice.split(" AND ")) for choice in choices)
        if not fits and component["name"] not in exceptions:
            bad.append(f"{component['name']}: {expression}")
    checks.check("every crate's licence is one that deny.toml allows", not bad, "\n".join(bad))


# ---- the crate ----


def crate(checks):
    """What `cargo package` makes is whole: it builds from its own tarball. Of the files as they are, committed or not."""
    started = time.monotonic()
    status, out = run("cargo", "package", "--locked", "--allow-dirty", "--target-dir", project.ROOT / "target" / "crate", cwd=project.ROOT)
    checks.check("cargo package: the crate builds from its own tarball", not status, out)
    print(f"crate: {time.monotonic() - started:.0f} s", flush=True)


# ---- the .deb ----


def build(checks, out):
    print("building the package", flush=True)
    done = subprocess.run([project.ROOT / "scripts/package", "deb", "--out", out], stdout=subprocess.PIPE, text=True)
    name = done.stdout.strip()
    if not checks.check("scripts/package deb", done.returncode == 0 and Path(name).is_file(), done.stdout):
        return None
    return Path(name)


def look(checks, deb):
    """The package by itself: what is in it, and what lintian says."""
    _, listing = run("dpkg-deb", "--contents", deb)
    for path in [
        "./usr/bin/scx_proxy", "./usr/bin/scx_proxy-inversion", "./etc/scx_proxy.toml", "./usr/lib/systemd/system/scx_proxy.service",
        "./usr/share/man/man8/scx_proxy.8.gz", "./usr/share/man/man8/scx_proxy-top.8.gz",
        "./usr/share/bash-completion/completions/scx_proxy", "./usr/share/doc/scx-proxy/sbom.cdx.json",
        "./usr/share/doc/scx-proxy/licenses-of-crates.gz", "./usr/share/doc/scx-proxy/copyright",
    ]:  # fmt: skip
        checks.check(f"it has {path}", f" {path}\n" in listing, listing)
    _, conffiles = run("dpkg-deb", "--info", deb, "conffiles")
    checks.check("the configuration is a conffile", "/etc/scx_proxy.toml" in conffiles, conffiles)
    if shutil.which("lintian"):
        # whoever publishes the package sets DEBEMAIL; inversion has --help only
        tags = "bogus-mail-host,bogus-mail-host-in-debian-changelog,no-manual-page"
        status, out = run("lintian", "--allow-root", "--fail-on", "error", "--suppress-tags", tags, deb)
        checks.check("lintian finds no error", not status, out)
    else:
        checks.skip("lintian", "lintian is not there")
    with tempfile.TemporaryDirectory() as tmp:
        run("dpkg-deb", "-x", deb, tmp)
        _, symbols = run("strings", "-a", Path(tmp) / "usr/bin/scx_proxy")
        ours = [line for line in symbols.splitlines() if "src/model/" in line or line.startswith("host_")]
        checks.check("what only tests need is not in the program", len(symbols) > 1000 and not ours, "\n".join(ours))


# ---- bare roots ----


def make_root(release, deb):
    """A root of a Debian release with what the package depends on."""
    _, depends = run("dpkg-deb", "--field", deb, "Depends")
    names = [re.split(r"[ (|]", part.strip())[0] for part in depends.split(",")]
    return roots.make(release, [*names, *AROUND])


def in_root(checks, release, deb):
    started = time.monotonic()
    tar = make_root(release, deb)
    print(f"root of {release}: {time.monotonic() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        roots.unpack(tar, root)
        run("mknod", "-m", "666", root / "dev/null", "c", "1", "3")
        before = files(root)
        shutil.copy(deb, root / "package.deb")
        name = f"{release}: "
        status, out = within(root, "dpkg", "-i", "/package.deb")
        if not checks.check(name + "installs", not status, out):
            return
        status, out = within(root, "scx_proxy", "--version")
        checks.check(name + "scx_proxy --version", not status and out.startswith("scx_proxy "), out)
        status, out = within(root, "scx_proxy", "doctor")
        # no /sys here: it has to say so, not to fail in another way
        checks.check(name + "doctor's verdict", status == 1 and "sysfs is not mounted" in out, out)
        status, out = within(root, "scx_proxy-inversion", "--help")
        checks.check(name + "scx_proxy-inversion --help", not status and "inversion" in out, out)
        for page in ("scx_proxy", "scx_proxy-doctor", "scx_proxy-top"):
            status, out = within(root, "man", page)
            checks.check(f"{name}man {page}", not status and "EXIT STATUS" in out, out)
        _, defaults = within(root, "scx_proxy", "--config", "/dev/null", "--print-config")
        status, out = within(root, "scx_proxy", "--print-config")
        checks.check(name + "the installed configuration holds the defaults", not status and out == defaults and "slice-us" in out, out)
        status, out = within(root, "systemd-analyze", "verify", "/usr/lib/systemd/system/scx_proxy.service")
        checks.check(name + "systemd-analyze verify is clean", not status and not out.strip(), out)
        status, out = within(root, "systemd-analyze", "security", "--offline=true", "/usr/lib/systemd/system/scx_proxy.service")
        exposure = re.search(r"exposure level for .*: ([\d.]+)", out)
        checks.check(f"{name}systemd-analyze security below {EXPOSURE_MAX}: {exposure and exposure[1]}", bool(exposure) and float(exposure[1]) < EXPOSURE_MAX, out)
        links = list((root / "etc/systemd/system").rglob("scx_proxy.service"))
        checks.check(name + "nothing is enabled", not links, links)
        within(root, "systemctl", "enable", "scx_proxy")
        (root / "etc/scx_proxy.toml").write_text("observe = true\n")
        status, out = within(root, "dpkg", "-r", "scx-proxy")
        kept = (root / "etc/scx_proxy.toml").read_text()
        checks.check(name + "removed, and the configuration is kept", not status and kept == "observe = true\n" and not (root / "usr/bin/scx_proxy").exists(), out)
        status, out = within(root, "dpkg", "-P", "scx-proxy")
        (root / "package.deb").unlink()
        left = files(root) - before
        checks.check(name + "purged, and nothing is left", not status and not left, "\n".join(sorted(left)) or out)
        gone = before - files(root)
        checks.check(name + "and nothing else is gone", not gone, "\n".join(sorted(gone)))


# ---- a guest with systemd ----

# the root comes as a file, since a cloud kernel has no file system for a disk built in
INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t tmpfs -o size=85%,mode=755 tmpfs /new
/bin/busybox tar -xf /root.tar -C /new
/bin/busybox rm /root.tar
exec /bin/busybox switch_root /new /lib/systemd/systemd
"""
UNIT = """[Unit]
Description=What is tested
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh /inside.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
[Install]
WantedBy=multi-user.target
"""


def image(tmp, deb):
    """An initramfs that holds a root with the package beside it, and boots into systemd."""
    root, ram = tmp / "root", tmp / "ram"
    root.mkdir()
    roots.unpack(make_root(BOOTED, deb), root)
    shutil.copy(deb, root / "package.deb")
    shutil.copy(INSIDE, root / "inside.sh")
    (root / "etc/systemd/system/inside.service").write_text(UNIT)
    within(root, "systemctl", "enable", "inside")
    # nobody logs in, and nothing is to wait for devices that there are not
    within(root, "systemctl", "mask", "serial-getty@ttyS0.service", "getty@tty1.service", "systemd-networkd-wait-online.service")
    (root / "etc/machine-id").write_text("")
    for folder in (ram / "bin", ram / "dev"):
        folder.mkdir(parents=True)
    shutil.copy("/bin/busybox", ram / "bin/busybox")
    (ram / "init").write_text(INIT)
    (ram / "init").chmod(0o755)
    run("mknod", ram / "dev/console", "c", "5", "1")
    status, out = run("tar", "-cf", ram / "root.tar", "-C", root, ".")
    if status:
        raise project.Failure(out)
    cpio = tmp / "ram.cpio"
    with cpio.open("wb") as file:
        names = subprocess.run(["find", ".", "-print0"], cwd=ram, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["/bin/busybox", "cpio", "-o", "-H", "newc", "-0"], cwd=ram, input=names, stdout=file, stderr=subprocess.DEVNULL, check=True)
    return cpio


def guest(checks, deb):
    kernel = kernels.ensure(KERNEL)
    with tempfile.TemporaryDirectory() as name:
        tmp = Path(name)
        cpio = image(tmp, deb)
        shutil.rmtree(tmp / "root")
        shutil.rmtree(tmp / "ram")
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G", "-nographic", "-no-reboot",
            "-nic", "none", "-kernel", kernel / "boot" / f"vmlinuz-{kernels.version_of(kernel)}", "-initrd", cpio,
            "-append", "console=ttyS0 quiet panic=-1 no_timer_check systemd.show_status=0 loglevel=3",
        ]  # fmt: skip
        # emulation breaks some boots before anything of ours runs
        for boot in range(1, project.RUNS_MAX + 1):
            out = follow(checks, [str(part) for part in command])
            if boot == project.RUNS_MAX or re.search(r"^(not )?ok - ", out, re.M) or "Kernel panic" not in out:
                break
            print(f"the guest died at boot; boot {boot + 1} of {project.RUNS_MAX}", flush=True)
    checks.check("systemd: the guest came to its end", re.search(r"^all done$", out, re.M), out[-3000:])


def follow(checks, command):
    """Run the guest for as long as it may, with its results as they come; returns its console."""
    guest = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    limit = threading.Timer(GUEST_SECS, guest.kill)
    limit.start()
    lines = []
    try:
        for line in guest.stdout:
            lines.append(line.rstrip())
            result, _, what = lines[-1].partition(" - ")
            if result in ("ok", "not ok"):
                checks.check(f"systemd: {what}", result == "ok")
            elif result == "info":
                print(f"        | {what}", flush=True)
    finally:
        limit.cancel()
        guest.kill()
        guest.wait()
    return "\n".join(lines)


def main():
    """Parts may be named: lint, crate, roots, guest; without names all of them."""
    parts = set(sys.argv[1:]) or {"lint", "crate", "roots", "guest"}
    checks = Checks()
    if "lint" in parts:
        lint(checks)
        licences(checks)
    if "crate" in parts:
        crate(checks)
    if parts & {"roots", "guest"}:
        if why := roots.cannot():
            checks.skip("roots of Debian", f"{why} (scripts/setup --packages)")
        elif deb := build(checks, project.ROOT / "target" / "package"):
            if "roots" in parts:
                look(checks, deb)
                for release in RELEASES:
                    in_root(checks, release, deb)
            if "guest" in parts:
                guest(checks, deb)
    passed, failed, skipped = checks.counts
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (project.Failure, kernels.KernelError, roots.RootError, OSError, subprocess.SubprocessError) as error:
        print(f"packages: error: {error}", file=sys.stderr)
        sys.exit(1)
