// SPDX-License-Identifier: GPL-2.0-only
//! What the kernel's debug dump says of the scheduler: asked for by SysRq-D, which writes it to a
//! tracepoint; a stall report has the same lines.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use libtest_mimic::Failed;
use scx_proxy::cli::SOCKET;
use scx_proxy::client::Client;

use crate::Test;
use crate::machine::{cpu_numbers, ensure, wait_for};
use crate::sched;

pub const TESTS: &[Test] = &[("dump::names_a_waiting_donor", names_a_waiting_donor)];

const TRACING: &str = "/sys/kernel/tracing";
const ENABLE: &str = "/sys/kernel/tracing/events/sched_ext/sched_ext_dump/enable";
const PATIENCE: Duration = Duration::from_secs(60);

/// While it only observes, an inversion lasts long enough to be looked at.
fn names_a_waiting_donor() -> Result<(), Failed> {
    sched::with(&[], || {
        let _ = crate::machine::run(&["mount", "-t", "tracefs", "none", TRACING]);
        let mut client = Client::connect(Path::new(SOCKET)).map_err(|e| format!("{e:#}"))?;
        client
            .set_donating(false)
            .map_err(|error| format!("{error:#}"))?;
        fs::write(ENABLE, "1")?;
        let child = Command::new(env!("CARGO_BIN_EXE_inversion"))
            .args(["--lock", "f_pos_lock", "--topology", "cross"])
            .args(["--hogs", "1", "--trials", "1", "--critical-ms", "100"])
            .args(["--json", "-"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let result = look(&mut client);
        fs::write(ENABLE, "0")?;
        client
            .set_donating(true)
            .map_err(|error| format!("{error:#}"))?;
        end(child)?;
        result
    })
}

fn end(mut child: Child) -> Result<(), Failed> {
    wait_for("the inversion to end", PATIENCE, || {
        child.try_wait().is_ok_and(|status| status.is_some())
    })
}

/// The donor's pid, of a wait that has lasted for a second.
fn waiting(client: &mut Client) -> Result<u32, Failed> {
    let mut found = None;
    wait_for("a wait of a second", PATIENCE, || {
        let view = client.view(100).unwrap_or_default();
        found = view.chains.iter().find_map(|chain| {
            let link = &chain.links[0];
            let is_ours = link.task.comm == "inversion" && link.waited_ns > 1_000_000_000;
            is_ours.then_some(link.task.pid)
        });
        found.is_some()
    })?;
    found.ok_or_else(|| "no wait".into())
}

fn dump() -> Result<String, Failed> {
    fs::write(format!("{TRACING}/trace"), "")?;
    fs::write("/proc/sysrq-trigger", "D")?;
    Ok(fs::read_to_string(format!("{TRACING}/trace"))?)
}

fn look(client: &mut Client) -> Result<(), Failed> {
    let donor = waiting(client)?;
    let text = dump()?;
    let line = |what: &[&str]| {
        let mut lines = text.lines();
        lines.find(|line| what.iter().all(|part| line.contains(part)))
    };
    let named = format!("proxy: donor inversion[{donor}] ");
    let last = cpu_numbers("possible")?.into_iter().max().unwrap_or(0);
    let cpus = format!("nr_cpu_ids={}", last + 1);
    for expected in [
        &["proxy: donating=0", &cpus, "idle_with_donors="][..],
        &["proxy: clock=", "running=", "queued=", "first_donor_key="],
        &[&named, "wait=", "token=", "type=mutex", "key=", "weight="],
        &["proxy: place=queued", "dsq_cpu=", "weight=", "queued="],
        &["proxy: place=running", "key="],
    ] {
        match line(expected) {
            Some(line) => println!("{line}"),
            None => return Err(format!("no line with {expected:?} in\n{text}").into()),
        }
    }
    let waits_for = line(&[&named]).and_then(|line| line.split("for=").nth(1)?.split("ms").next());
    let waits_for_ms: u64 = waits_for.unwrap_or_default().parse().unwrap_or(0);
    ensure(waits_for_ms >= 1000, || {
        format!("it waits for {waits_for_ms} ms, by the dump")
    })
}
