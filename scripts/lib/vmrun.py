# SPDX-License-Identifier: GPL-2.0-only
"""Boots a kernel with virtme-ng, runs one command in it, reports how that went.

Owns the run folder <cache>/run/<random> (shared with the guest), the host-side
temporary folder and the process group of virtme-ng, QEMU and virtiofsd; all are
gone when run() returns or raises.

The guest's answers come through files in the run folder, because virtme-ng's
own channel (virtio-serial ports found by udev) is not there on a bare machine:
`started` is written right before the command, `out` and `err` grow while it
runs, `rc` is written after it. So a guest that is gone without `started` is a
failed boot, which emulation has now and then and which is tried again; one that
is gone without `rc` is a failure of whatever ran in it.

A guest with room for more CPUs (cpus_max) asks for one by making the file
`plug` there. It is removed when the CPU has been plugged in.
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import kernels

BOOTS_MAX = 3
BOOT_SECS_TCG = 120
BOOT_SECS_KVM = 60
# 64 CPUs take two minutes to boot where one after the other is emulated
BOOT_SECS_VIRTUAL = 900
POWEROFF_SECS = 30
MONITOR_SECS = 30
CPUS_REAL_TIME = 64  # beyond, emulated CPUs starve each other
CPUS_MAX = 255  # of QEMU's machine
POLL_SECS = 0.05
LOG_TAIL_LINES = 40
LOG_LINES_MAX = 150
BOOT_MARK = "# boot "  # a kernel log holds every boot, retried ones too

STATUS_TIMEOUT = 124
STATUS_VM_FAILED = 125

VNG_VERSION_GLOB = "vng-*/bin/vng"
VIRTIOFSD_GLOB = "virtiofsd-*/bin"
GUEST_SCRIPT = Path(__file__).resolve().parent / "guest.sh"
EVEN_SCRIPT = GUEST_SCRIPT.with_name("even_clock.py")

# Lines that a healthy kernel does not print.
WARNING = re.compile(
    r"BUG:|kernel BUG at|WARNING:|ODEBUG:|Oops|Kernel panic|general protection|Call Trace|KASAN|UBSAN|INFO: task .* blocked"
    r"|detected stall|soft lockup|hard LOCKUP|scheduling while atomic|bad unlock|possible recursive locking"
    r"|sched_ext:.*(?:runtime error|aborted|stall)"
)

# What a crash begins with; the registers and stacks behind it fill many lines.
CAUSE = re.compile(r"BUG:|Oops|Kernel panic|sysrq: ")


class VmError(Exception):
    """The virtual machine cannot be tried at all: what is wrong and what to do."""


@dataclasses.dataclass
class Job:
    """What to run, and in which machine."""

    kernel: Path  # a folder as scripts/kernel makes it, or an image
    command: list[str]
    cpus: int = 4
    threads: int = 1  # of a core
    cpus_max: int | None = None  # CPUs that there may be, in the end; None: cpus
    memory: str = "2G"
    timeout_secs: float | None = None  # of the command, not of the boot
    rw: list[str] = dataclasses.field(default_factory=list)
    append: list[str] = dataclasses.field(default_factory=list)
    cwd: str = dataclasses.field(default_factory=os.getcwd)
    kernel_log: Path | None = None  # None: kept only while run() is at work
    boot_secs: float | None = None  # None: by accelerator
    stdout: object = None  # binary streams; None: this process's own
    stderr: object = None
    virtual_time: bool = False  # emulated: the clock counts instructions, 2 ns each, and nothing else
    even_us: int | None = None  # CPUs of such a machine take turns of about that length (even_clock.py)
    one_thread: bool = False  # emulated CPUs in turn, on a clock of real time: slower, and nothing that only happens side by side
    fail_boots: int = 0  # for the self-test: let that many boots die early


@dataclasses.dataclass
class Outcome:
    """How it went. status is the command's, 124 after a timeout, 125 when the machine failed."""

    status: int = STATUS_VM_FAILED
    reason: str = "no boot"  # exited | died | timeout | no boot
    boots: int = 0
    boot_secs: float = 0.0  # of the boot that led to the command
    run_secs: float = 0.0
    accel: str = ""
    version: str = ""
    powered_off: bool = True  # False: the guest hung after its command had ended
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def retries(self):
        return max(0, self.boots - 1)


def say(text):
    print(f"vm: {text}", file=sys.stderr, flush=True)


def use_kvm():
    """KVM only where the CPU has it: /dev/kvm alone may stand for a nested one that boots no stock kernel."""
    with contextlib.suppress(OSError):
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
        if flags and {"vmx", "svm"} & set(flags[1].split()):
            os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
            return True
    return False


def one_of(pattern, what):
    found = sorted(kernels.cache_dir().glob(pattern))
    if not found:
        raise VmError(f"{what} is not in {kernels.cache_dir()}; run scripts/setup")
    return found[-1]


def check_path(path):
    """virtme-ng carries folders on a kernel command line, which cannot quote."""
    if not re.fullmatch(r"[A-Za-z0-9/._+@:-]+", path) or "=" in path:
        raise VmError(f"the folder {path!r} has characters that a kernel command line cannot carry")
    return path


def check_cpus(job):
    """What QEMU would refuse, or would take hours for."""
    most = job.cpus_max or job.cpus
    if most < job.cpus:
        raise VmError(f"a machine of {most} CPUs at the most cannot have {job.cpus}")
    if job.cpus % job.threads or most % job.threads:
        raise VmError(f"{job.cpus} to {most} CPUs are no cores of {job.threads} threads")
    if job.cpus > CPUS_REAL_TIME and not job.virtual_time:
        raise VmError(f"more than {CPUS_REAL_TIME} CPUs want --virtual-time")
    if job.even_us and not job.virtual_time:
        raise VmError("--even-us wants --virtual-time")


def write_job(job, run_dir):
    """The guest's half of the job, as shell text with every value quoted."""
    config = kernels.config_of(job.kernel) or ""
    environment = {
        "PATH": ":".join([os.environ.get("PATH", "/usr/bin:/bin"), "/usr/local/sbin:/usr/sbin:/sbin"]),
        "HOME": os.environ.get("HOME", "/root"),
        "LANG": "C.UTF-8",
        "SCX_PROXY_VM": kernels.version_of(job.kernel),
    }
    if job.cpus_max:
        environment["SCX_PROXY_VM_PLUG"] = str(run_dir / "plug")
    if job.even_us:
        environment["SCX_PROXY_VM_EVEN_US"] = str(job.even_us)
    for name in ("RUST_BACKTRACE", "RUST_LOG", "TERM", "CI"):
        if name in os.environ:
            environment[name] = os.environ[name]
    lines = [f"config={shlex.quote(str(config))}", f"cwd={shlex.quote(job.cwd)}"]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    # A subshell with exec: the command's status is the subshell's, and nothing interprets its words.
    lines += ["job() {", "exec " + shlex.join(job.command), "}"]
    # A copy, since the repository may be where the guest has a tmpfs of its own.
    for script in (GUEST_SCRIPT, EVEN_SCRIPT):
        shutil.copy(script, run_dir / script.name)
    (run_dir / "job.sh").write_text("\n".join(lines) + "\n")
    for name in ("out", "err"):
        (run_dir / name).touch()


def topology(job):
    """What QEMU's -smp takes.

    A core is a socket where CPUs may be plugged in: on what looks like bare metal, as emulation does, Linux
    takes no CPU for pluggable whose socket has another one from the beginning.
    """
    if not job.cpus_max and job.threads == 1:
        return str(job.cpus)
    most = job.cpus_max or job.cpus
    sockets = most // job.threads if job.cpus_max else 1
    return f"{job.cpus},maxcpus={most},sockets={sockets},cores={most // job.threads // sockets},threads={job.threads}"


def vng_command(job, run_dir, tmp_dir, kvm, attempt):
    vng = one_of(VNG_VERSION_GLOB, "virtme-ng")
    command = [str(vng), "-v", "-r", str(kernels.image_of(job.kernel))]
    # The same devices under KVM and TCG: microvm needs a module before it can load one.
    command += ["--disable-microvm", "--cpus", topology(job), "--memory", job.memory]
    append = ["oops=panic", *job.append]
    qemu = []
    if job.cpus_max:
        qemu.append(f"-qmp unix:{Monitor.path(tmp_dir)},server=on,wait=off")
    if not kvm:
        command.append("--disable-kvm")
        if job.virtual_time:
            qemu.append("-icount shift=1 -accel tcg,thread=single")
        elif job.one_thread:
            qemu.append("-accel tcg,thread=single")
        # Emulated CPUs starve now and then; the watchdog would then give up the TSC for a slow clock.
        append.append("tsc=reliable")
    if attempt <= job.fail_boots:
        append.append("rdinit=/nonexistent root=/nonexistent init=/nonexistent panic=-1")
    if qemu:
        command.append("--qemu-opts=" + " ".join(qemu))
    for argument in append:
        command += ["--append", argument]
    for path in [str(run_dir), *job.rw]:
        command.append(f"--rwdir={check_path(path)}")
    return [*command, "--", shlex.join(["sh", str(run_dir / "guest.sh"), str(run_dir)])]


class Monitor:
    """QEMU's monitor (QMP), for requests of a guest."""

    def __init__(self, tmp_dir):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(MONITOR_SECS)
        self.socket.connect(self.path(tmp_dir))
        self.lines = self.socket.makefile("r")
        self.lines.readline()  # the greeting
        self.ask("qmp_capabilities")

    @staticmethod
    def path(tmp_dir):
        return os.path.join(tmp_dir, "qmp")

    def ask(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        for line in self.lines:
            answer = json.loads(line)
            if "error" in answer:
                raise VmError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise VmError(f"{command}: QEMU has gone")

    def plug(self):
        """One more CPU: the first that QEMU has room for."""
        free = [cpu for cpu in self.ask("query-hotpluggable-cpus") if "qom-path" not in cpu]
        if not free:
            raise VmError("there is no room for another CPU")
        # in the order in which the guest numbers them
        order = ("socket-id", "die-id", "core-id", "thread-id")
        cpu = min(free, key=lambda cpu: [cpu["props"].get(part, 0) for part in order])
        self.ask("device_add", driver=cpu["type"], **cpu["props"])

    def close(self):
        self.lines.close()
        self.socket.close()


def plug_if_asked(tmp_dir, run_dir):
    """The guest made a file for it, and sees by its end that the CPU is there, or that it cannot be."""
    wish = run_dir / "plug"
    if not wish.exists():
        return
    try:
        with contextlib.closing(Monitor(tmp_dir)) as monitor:
            monitor.plug()
    except (VmError, OSError, ValueError) as error:
        say(f"no CPU was plugged in: {error}")
    wish.unlink()


# SCHED_IDLE holds within a session, where sessions are groups (sched(7), "The autogroup feature"); a guest has its own
IN_SPARE_TIME = ["sh", "-c", '{ echo 19 >/proc/self/autogroup; } 2>/dev/null; exec "$@"', "sh"]

# Waits for a word or the end of its stdin. No word means that we were killed by
# a signal that cannot be handled: then it cleans up in our place.
CLEANER = 'read -r word || { kill -s KILL -- "-$1"; rm -rf "$2" "$3"; }'


class Machine:
    """One boot: the process group and its console, which is copied to the kernel log."""

    def __init__(self, command, log_file, run_dir, tmp_dir):
        environment = dict(os.environ, TMPDIR=str(tmp_dir))
        # virtme-ng looks its own parts up in PATH, and takes the first virtiofsd
        # there (QEMU 7.2's, in C, does not do).
        parts = [os.path.dirname(command[0]), str(one_of(VIRTIOFSD_GLOB, "virtiofsd"))]
        environment["PATH"] = ":".join([*parts, os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"])
        self.process = subprocess.Popen(
            [*IN_SPARE_TIME, *command] if os.sched_getscheduler(0) == os.SCHED_IDLE else command,
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.cleaner = subprocess.Popen(
            ["sh", "-c", CLEANER, "sh", str(self.process.pid), str(run_dir), str(tmp_dir)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self.log_file = log_file
        self.killed = False
        self.copier = threading.Thread(target=self._copy_console, daemon=True)
        self.copier.start()

    def _copy_console(self):
        with contextlib.suppress(OSError, ValueError):
            while chunk := self.process.stdout.read1(65536):
                # What a killed QEMU still has to say is not the guest's last words.
                if not self.killed:
                    self.log_file.write(chunk)
                    self.log_file.flush()

    def gone(self):
        return self.process.poll() is not None

    def kill(self):
        """End the whole group: QEMU and virtiofsd are children of children."""
        self.killed = not self.gone()
        for sign, patience_secs in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if not self._group_alive():
                break
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            deadline = time.monotonic() + patience_secs
            while self._group_alive() and time.monotonic() < deadline:
                time.sleep(POLL_SECS)
        self.process.wait()
        self.copier.join(timeout=2)
        with contextlib.suppress(BrokenPipeError):
            self.cleaner.communicate(b"done\n")

    def _group_alive(self):
        """Zombies do not count: in a container nobody may reap the orphaned ones."""
        self.process.poll()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) == self.process.pid and state not in "ZX":
                    return True
        return False


class Tail:
    """Passes on what the guest appends to a file."""

    def __init__(self, path, stream):
        self.file = open(path, "rb")
        self.stream = stream

    def pump(self):
        while chunk := self.file.read(1 << 16):
            self.stream.write(chunk)
            self.stream.flush()


def wait_for_start(machine, run_dir, boot_secs):
    """None once the command is about to run, otherwise why this boot failed."""
    start = time.monotonic()
    while not (run_dir / "started").exists():
        spent = time.monotonic() - start
        if machine.gone() and not (run_dir / "started").exists():
            return f"died after {spent:.0f} s"
        if spent > boot_secs:
            return f"hung for {spent:.0f} s"
        time.sleep(POLL_SECS)
    return None


def follow(machine, job, run_dir, tmp_dir, outcome):
    """From `started` on: pass the output on until the command, the machine or the time has ended."""
    start = time.monotonic()
    tails = [
        Tail(run_dir / "out", job.stdout or sys.stdout.buffer),
        Tail(run_dir / "err", job.stderr or sys.stderr.buffer),
    ]
    while True:
        gone, done = machine.gone(), (run_dir / "rc").exists()
        outcome.run_secs = time.monotonic() - start
        for tail in tails:
            tail.pump()
        if job.cpus_max:
            plug_if_asked(tmp_dir, run_dir)
        if done:
            outcome.status, outcome.reason = int((run_dir / "rc").read_text()), "exited"
            break
        if gone:
            outcome.status, outcome.reason = STATUS_VM_FAILED, "died"
            return
        if job.timeout_secs and outcome.run_secs > job.timeout_secs:
            outcome.status, outcome.reason = STATUS_TIMEOUT, "timeout"
            return
        time.sleep(POLL_SECS)
    # Let it power off by itself: what the kernel says on the way down belongs in the log.
    deadline = time.monotonic() + POWEROFF_SECS
    while not machine.gone() and time.monotonic() < deadline:
        time.sleep(POLL_SECS)
    outcome.powered_off = machine.gone()


def attempt_boot(job, outcome, log_file, kvm, tmp_dir):
    """One boot in a run folder of its own. True when it got as far as the command."""
    outcome.boots += 1
    root = kernels.cache_dir() / "run"
    root.mkdir(parents=True, exist_ok=True)
    run_dir = Path(tempfile.mkdtemp(dir=root))
    machine = None
    try:
        write_job(job, run_dir)
        command = vng_command(job, run_dir, tmp_dir, kvm, outcome.boots)
        log_file.write(f"{BOOT_MARK}{outcome.boots}: {shlex.join(command)}\n".encode())
        log_file.flush()
        start = time.monotonic()
        machine = Machine(command, log_file, run_dir, tmp_dir)
        boot_secs = job.boot_secs or (BOOT_SECS_KVM if kvm else BOOT_SECS_VIRTUAL if job.virtual_time else BOOT_SECS_TCG)
        trouble = wait_for_start(machine, run_dir, boot_secs)
        outcome.boot_secs = time.monotonic() - start
        if trouble is None:
            follow(machine, job, run_dir, tmp_dir, outcome)
            return True
        more = f"trying again ({outcome.boots + 1} of {BOOTS_MAX})" if outcome.boots < BOOTS_MAX else "giving up"
        say(f"boot {outcome.boots} of {outcome.version} {trouble}, before the command started; {more}")
        return False
    finally:
        if machine:
            machine.kill()
        shutil.rmtree(run_dir, ignore_errors=True)


@contextlib.contextmanager
def signals_raise():
    """SIGTERM and SIGHUP unwind like Ctrl-C does, so that `finally` cleans up."""

    def handler(number, _frame):
        for sign in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(sign, signal.SIG_IGN)
        raise SystemExit(128 + number)

    handled = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.signal(sign, handler) for sign in handled]
    try:
        yield
    finally:
        for sign, old in zip(handled, before):
            signal.signal(sign, old)


def warnings(log):
    """Lines of the last boot's kernel log that a healthy kernel does not print."""
    lines = Path(log).read_text(errors="replace").rpartition(BOOT_MARK)[2].splitlines()
    return [line for line in lines if WARNING.search(line)]


def show_tail(log):
    """The end of the log, and more of it where that is what it takes to see why the kernel panicked."""
    lines = Path(log).read_text(errors="replace").splitlines()[-LOG_LINES_MAX:]
    causes = [nr for nr, line in enumerate(lines) if CAUSE.search(line)]
    lines = lines[min([len(lines) - LOG_TAIL_LINES, *causes]) if len(lines) > LOG_TAIL_LINES else 0 :]
    say(f"the kernel log's last {len(lines)} lines:")
    for line in lines:
        print(f"  | {line}", file=sys.stderr)


def run(job):
    """Boot, run, clean up. Prints trouble with the machine on stderr; returns an Outcome."""
    kvm = use_kvm()
    outcome = Outcome(accel="kvm" if kvm else "tcg", version=kernels.version_of(job.kernel))
    check_path(job.cwd)
    check_cpus(job)
    for path in job.rw:
        if not os.path.isdir(path):
            raise VmError(f"--rw {path}: no such folder")
    with signals_raise(), tempfile.TemporaryDirectory(prefix="scx_proxy-", ignore_cleanup_errors=True) as tmp:
        log = Path(job.kernel_log or Path(tmp) / "kernel.log")
        with open(log, "wb") as log_file:
            while outcome.boots < BOOTS_MAX and not attempt_boot(job, outcome, log_file, kvm, tmp):
                pass
        outcome.warnings = warnings(log)
        if outcome.reason != "exited":
            say({
                "died": f"the guest died {outcome.run_secs:.0f} s after the command had started",
                "timeout": f"the command did not end within {job.timeout_secs or 0:g} s",
                "no boot": f"{outcome.version} did not boot in {outcome.boots} attempts",
            }[outcome.reason])
            show_tail(log)
        elif not outcome.powered_off:
            say(f"the guest did not power off within {POWEROFF_SECS} s after the command, and was killed")
            show_tail(log)
    return outcome
