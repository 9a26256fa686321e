// SPDX-License-Identifier: GPL-2.0-only
//! As a service manager sees it: readiness, signs of life, SIGHUP, exit codes. The unit itself is tested with
//! systemd by `scripts/test --packages`.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;

use crate::Test;
use crate::machine::{ensure, read, run, wait_for};
use crate::sched::{self, SCX_PROXY, UNLOAD, loaded};

/// They load schedulers of their own.
pub const TESTS: &[Test] = &[
    ("service::tells_and_reloads", tells_and_reloads),
    (
        "service::sysrq_is_told_from_a_fault",
        sysrq_is_told_from_a_fault,
    ),
];

const LOG: &str = "/run/service.log";
const CONFIG: &str = "/run/service.toml";
const MANAGER: &str = "/run/service.notify";

/// Without a terminal, as services are.
fn start() -> Result<Child, Failed> {
    sched::stop();
    let mut command = Command::new(SCX_PROXY);
    command.args(["--config", CONFIG]).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(File::create(LOG)?);
    command.env("NOTIFY_SOCKET", MANAGER);
    command.env("WATCHDOG_USEC", "2000000");
    // SAFETY: one system call, between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::setsid() {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let mut child = command.spawn()?;
    sched::loads(&mut child, LOG)?;
    Ok(child)
}

/// What the manager is told until that has come.
fn told(manager: &UnixDatagram, what: &str) -> Result<String, Failed> {
    let mut all = String::new();
    wait_for(what, UNLOAD, || {
        let mut message = [0; 4096];
        while let Ok(len) = manager.recv(&mut message) {
            all.push_str(&String::from_utf8_lossy(&message[..len]));
            all.push('\n');
        }
        all.contains(what)
    })
    .map_err(|e| format!("{}: {all}", e.message().unwrap_or_default()))?;
    Ok(all)
}

/// A file, SIGHUP, and what the log says about it.
fn reload(child: &Child, file: &str, says: &str) -> Result<(), Failed> {
    fs::write(CONFIG, file)?;
    run(&["kill", "-HUP", &child.id().to_string()])?;
    wait_for(says, UNLOAD, || read(LOG).contains(says)).map_err(|_| read(LOG).into())
}

fn tells_and_reloads() -> Result<(), Failed> {
    fs::write(CONFIG, "slice-us = 4000\n")?;
    let _ = fs::remove_file(MANAGER);
    let manager = UnixDatagram::bind(MANAGER)?;
    manager.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut child = start()?;
    let result = watched(&child, &manager);
    run(&["kill", "-TERM", &child.id().to_string()])?;
    let status = child.wait()?;
    result?;
    told(&manager, "STOPPING=1")?;
    fs::remove_file(MANAGER)?;
    ensure(status.success() && !Path::new(CONFIG).is_dir(), || {
        format!("{status}: {}", read(LOG))
    })
}

fn watched(child: &Child, manager: &UnixDatagram) -> Result<(), Failed> {
    let first = told(manager, "READY=1")?;
    ensure(first.contains("STATUS=scheduling"), || first.clone())?;
    // more than one: it goes on living
    told(manager, "WATCHDOG=1")?;
    told(manager, "WATCHDOG=1")?;
    reload(
        child,
        "slice-us = 4000\nobserve = true\n",
        "configuration reloaded: observe",
    )?;
    let log = read(LOG);
    ensure(log.contains("observing only"), || log.clone())?;
    ensure(!log.contains("started again"), || log.clone())?;
    reload(
        child,
        "slice-us = 5000\n",
        "takes effect only when scx_proxy is started again: slice-us",
    )?;
    ensure(read(LOG).contains("] donating"), || read(LOG))?;
    reload(
        child,
        "slice-us = 5000\nobserve = 7\n",
        "all stays as it was: /run/service.toml: observe = 7: must be true or false",
    )?;
    ensure(loaded(), || read(LOG))
}

/// By an administrator, who does not want it back at once.
fn sysrq_is_told_from_a_fault() -> Result<(), Failed> {
    fs::write(CONFIG, "")?;
    let mut child = start()?;
    fs::write("/proc/sysrq-trigger", "S")?;
    let status = sched::exits(&mut child)?;
    ensure(status.code() == Some(4), || {
        format!("{status:?}: {}", read(LOG))
    })
}
