# SPDX-License-Identifier: GPL-2.0-only
"""Tests of scripts/vm by running it, as a user would. Usage: selftest_vm.py [SERIES]"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import kernels
import vmrun

SCRIPTS = Path(__file__).resolve().parent.parent
SERIES = "6.18"
# Three boots that hang for as long as they may, and then some.
PATIENCE_SECS = 3 * vmrun.BOOT_SECS_TCG + 60


def leftovers(mark):
    """Processes that were started, however indirectly, with MARK in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # a zombie has no environment any more
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200])
    return found


class VmTest(unittest.TestCase):
    def setUp(self):
        # Under the cache and not under /tmp: the guest has to see it too.
        folder = tempfile.TemporaryDirectory(dir=kernels.cache_dir(), prefix="selftest-")
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        # This finds whatever a run leaves behind, and nothing of other runs.
        self.environment = os.environ | {"SCX_PROXY_SELFTEST": f"mark:{self.dir}"}

    def vm(self, *args, env=None, series=None):
        command = [str(SCRIPTS / "vm"), "--report", str(self.dir / "report.json")]
        command += ["--kernel-log", str(self.dir / "kernel.log"), *args[: args.index("--")]]
        command += [SERIES] if series is None else [series] if series else []
        command += args[args.index("--") :]
        done = subprocess.run(
            command, cwd=self.dir, env=self.environment | (env or {}), capture_output=True, text=True, timeout=PATIENCE_SECS
        )
        self.said = done.stdout + done.stderr
        return done

    def report(self):
        return json.loads((self.dir / "report.json").read_text())

    def assert_nothing_left(self):
        time.sleep(0.2)
        self.assertEqual(leftovers(f"mark:{self.dir}"), [])

    def test_words_and_status_0_arrive_as_they_are(self):
        words = ["a b", "c'd", 'e"f', "$HOME `id` \\ *", "", "two\nlines", "--help", "ü"]
        done = self.vm("--", "printf", "<%s>", *words)
        self.assertEqual(done.returncode, 0, self.said)
        self.assertEqual(done.stdout, "".join(f"<{word}>" for word in words))
        self.assertEqual(self.report()["reason"], "exited")
        self.assert_nothing_left()

    def test_status_7_both_streams_and_the_folders(self):
        (self.dir / "out").mkdir()
        script = (
            "echo on stdout; echo on stderr >&2; pwd; id -u; uname -r; cat /sys/kernel/sched_ext/state;"
            "test -r /boot/config-$(uname -r) && echo config; test -d /sys/fs/cgroup/. && echo cgroup;"
            "echo kept > out/file; (echo lost > file) 2>/dev/null || echo read-only; exit 7"
        )
        done = self.vm("--rw", "out", "--cpus", "2", "--", "sh", "-c", script)
        self.assertEqual(done.returncode, 7, self.said)
        lines = done.stdout.splitlines()
        self.assertEqual(lines[:3], ["on stdout", str(self.dir), "0"])
        self.assertTrue(lines[3].startswith(SERIES + "."), lines)
        self.assertEqual(lines[4:], ["disabled", "config", "cgroup", "read-only"])
        self.assertEqual(done.stderr.strip(), "on stderr")
        self.assertEqual((self.dir / "out" / "file").read_text(), "kept\n")
        self.assertFalse((self.dir / "file").exists())
        self.assertEqual(self.report()["warnings"], [])
        self.assertIn("Linux version", (self.dir / "kernel.log").read_text(errors="replace"))

    def test_a_guest_that_dies_under_the_command_is_125_with_its_log(self):
        done = self.vm("--", "sh", "-c", "echo before; echo c > /proc/sysrq-trigger; sleep 60; echo after")
        self.assertEqual(done.returncode, 125, self.said)
        self.assertEqual(done.stdout, "before\n")
        self.assertIn("the guest died", done.stderr)
        self.assertIn("sysrq triggered crash", done.stderr)
        self.assertEqual(self.report()["boots"], 1, "dying under the command must not be retried")
        self.assertTrue(self.report()["warnings"])
        self.assert_nothing_left()

    def test_a_command_out_of_time_is_124(self):
        done = self.vm("--timeout", "3", "--", "sh", "-c", "echo before; sleep 1000")
        self.assertEqual(done.returncode, 124, self.said)
        self.assertEqual(done.stdout, "before\n")
        self.assertIn("did not end within 3 s", done.stderr)
        self.assertIn("the kernel log's last", done.stderr)
        self.assert_nothing_left()

    def test_an_early_death_is_retried_and_counted(self):
        done = self.vm("--", "echo", "second try", env={"SCX_PROXY_VM_FAIL_BOOTS": "1"})
        self.assertEqual((done.returncode, done.stdout), (0, "second try\n"), self.said)
        self.assertIn("trying again (2 of 3)", done.stderr)
        # emulation may have killed another one
        boots, retries = self.report()["boots"], self.report()["retries"]
        self.assertIn(retries, (1, 2))
        self.assertEqual(boots, retries + 1)
        self.assertIn(f"{retries} of {boots} boots died early", done.stderr)
        self.assertEqual(self.report()["warnings"], [], "the failed boot's panic is not the good boot's")

    def test_a_kernel_that_never_boots_is_125(self):
        done = self.vm("--cpus", "1", "--", "echo", "never", env={"SCX_PROXY_VM_FAIL_BOOTS": "3"})
        self.assertEqual((done.returncode, done.stdout), (125, ""), self.said)
        self.assertIn("did not boot in 3 attempts", done.stderr)
        self.assertIn("Kernel panic", done.stderr)
        self.assert_nothing_left()

    def start_and_signal(self, sign):
        command = [str(SCRIPTS / "vm"), SERIES, "--", "sh", "-c", "echo up; sleep 1000"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True) as process:
            self.assertEqual(process.stdout.readline(), "up\n")
            self.assertNotEqual(leftovers(f"mark:{self.dir}"), [])
            process.send_signal(sign)
            return process.wait(timeout=30)

    def test_sigterm_takes_the_machine_down(self):
        self.assertEqual(self.start_and_signal(signal.SIGTERM), 128 + signal.SIGTERM)
        self.assert_nothing_left()

    def test_even_sigkill_takes_the_machine_down(self):
        self.assertEqual(self.start_and_signal(signal.SIGKILL), -signal.SIGKILL)
        time.sleep(1)
        self.assert_nothing_left()

    def test_a_kernel_image_is_booted_without_debians_tools(self):
        folder = kernels.cached(SERIES)
        # programs of other systems are where PATH says
        programs = self.dir / "bin"
        programs.mkdir()
        for place in os.environ["PATH"].split(":"):
            for program in Path(place).glob("*") if place else []:
                if not program.name.startswith(("apt", "dpkg")):
                    with contextlib.suppress(FileExistsError):
                        (programs / program.name).symlink_to(program)
        image = str(kernels.image_of(folder))
        done = self.vm("--kernel", image, "--", "sh", "-c", "uname -r; ls /boot", series="", env={"PATH": str(programs)})
        self.assertEqual(done.returncode, 0, self.said)
        self.assertEqual(done.stdout.split(), [folder.name, f"config-{folder.name}"])

    def test_what_is_no_kernel_image_is_125_with_a_reason(self):
        (self.dir / "bzImage").write_text("no kernel")
        self.assertEqual(self.vm("--kernel", str(self.dir / "bzImage"), "--", "true", series="").returncode, 125)
        self.assertIn("is no kernel image of x86", self.said)
        self.assertEqual(self.vm("--kernel", str(self.dir / "absent"), "--", "true", series="").returncode, 125)
        self.assertIn("cannot be read: No such file", self.said)
        self.assertEqual(self.vm("--kernel", "bzImage", "--", "true").returncode, 2)
        self.assertIn("name a SERIES, or an image", self.said)

    def test_bad_usage_is_2_with_a_reason(self):
        done = self.vm("--", "true", series="nope")
        self.assertEqual(done.returncode, 2)
        self.assertIn("unknown kernel series 'nope'; known are 7.3", done.stderr)
        self.assertEqual(self.vm("--").returncode, 2)
        self.assertIn("no COMMAND", self.said)
        self.assertEqual(self.vm("--rw", "absent", "--", "true").returncode, 125)
        self.assertIn("absent: no such folder", self.said)
        self.assertEqual(self.vm("--cpus", "0", "--", "true").returncode, 2)


def main(argv):
    global SERIES
    if argv:
        SERIES = argv[0]
    # Fetched here, so that the first test is not blamed for the network.
    kernels.ensure(SERIES)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(VmTest)
    result = unittest.TextTestRunner(stream=sys.stderr, verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    skipped = len(result.skipped)
    print(f"{result.testsRun - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
