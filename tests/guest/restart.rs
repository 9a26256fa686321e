// SPDX-License-Identifier: GPL-2.0-only
//! CPUs that go on and off line, and the scheduler's restarts with them: whoever watches goes on.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::Test;
use crate::lifecycle::switch_cpu;
use crate::load::Load;
use crate::machine::{ensure, run, wait_for};
use crate::sched::{self, SCX_PROXY};
use crate::watch::{replay, scrape};

/// After those that restarts would disturb.
pub const TESTS: &[Test] = &[(
    "restart::watchers_outlive_hotplug",
    watchers_outlive_hotplug,
)];

const TMUX: [&str; 5] = ["tmux", "-L", "restart", "-f", "/dev/null"];
/// Longer than an observation waits for its name.
const COUNTED: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A CPU goes off line and comes back, and the scheduler with it, twice: whoever watches goes on.
fn watchers_outlive_hotplug() -> Result<(), Failed> {
    sched::with(&[], || {
        let file = "/run/hotplug.rec";
        let mut load = Load::default();
        load.start(&[SCX_PROXY, "metrics", "127.0.0.1:9839"])?;
        let mut recorder = Command::new(SCX_PROXY)
            .args(["record", "--force", file])
            .stderr(File::create("/run/record.log")?)
            .spawn()?;
        let result = over_hotplug(file);
        run(&["kill", "-INT", &recorder.id().to_string()])?;
        let status = recorder.wait()?;
        let said = std::fs::read_to_string("/run/record.log")?;
        result.map_err(|why| format!("{}: {said}", why.message().unwrap_or("failed")))?;
        ensure(status.success(), || format!("{status}: {said}"))?;
        ensure(said.matches("is back after").count() == 2, || said.clone())?;
        print!("{said}");
        let json = replay(&[file, "--json"])?;
        let kinds: Vec<String> = json
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| Some(line["kind"].as_str()?.to_owned()))
            .collect();
        let parts: Vec<_> = kinds.split(|kind| kind == "restart").collect();
        let blocks = |part: &&[String]| part.iter().any(|kind| kind == "block");
        ensure(parts.len() == 3 && parts.iter().all(blocks), || {
            format!("{} parts, of {kinds:?}", parts.len())
        })?;
        let summary = replay(&[file, "--summary"])?;
        ensure(summary.contains("over 2 restarts"), || summary.clone())
    })
}

/// `scx_proxy top` in a terminal of tmux; gone when this is dropped.
struct Top;

impl Top {
    fn start() -> Result<Self, Failed> {
        let size = ["-x", "100", "-y", "30"];
        run(&[
            &TMUX[..],
            &["new-session", "-d"],
            &size,
            &[SCX_PROXY, "top"],
        ]
        .concat())?;
        Ok(Self)
    }

    fn screen(&self) -> String {
        let out = Command::new(TMUX[0])
            .args(&TMUX[1..])
            .args(["capture-pane", "-p"])
            .output();
        out.map_or_else(
            |error| error.to_string(),
            |out| String::from_utf8_lossy(&out.stdout).into_owned(),
        )
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = run(&[&TMUX[..], &["kill-server"]].concat());
    }
}

fn over_hotplug(file: &str) -> Result<(), Failed> {
    let count = |name: &str| {
        let page = scrape().unwrap_or_default();
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or(-1.0)
    };
    const EDGES: &str = r#"scx_proxy_edges_total{type="mutex"} "#;
    const WAITS: &str = r#"scx_proxy_wait_seconds_count{class="mutex fdget_pos"} "#;
    wait_for("the recording", PATIENCE, || Path::new(file).exists())?;
    wait_for("the metrics", PATIENCE, || count("scx_proxy_up ") == 1.0)?;
    let top = Top::start()?;
    let mut seen = (0.0, 0.0);
    let mut work = || {
        // a wait whose lock got its name too late, or that nobody followed yet, is counted elsewhere: the next
        // one must be counted
        let mut counted = Err("not tried".into());
        for _ in 0..3 {
            let out = Command::new(env!("CARGO_BIN_EXE_inversion"))
                .args(["--lock", "f_pos_lock", "--topology", "cross"])
                .args(["--trials", "1", "--critical-ms", "40"])
                .output()?;
            let mut now = (0.0, 0.0);
            counted = wait_for("edges and waits to be counted", COUNTED, || {
                now = (count(EDGES), count(WAITS));
                let more = now.0 > seen.0 && now.1 > seen.1;
                seen = if more { now } else { seen };
                more
            });
            if counted.is_ok() {
                break;
            }
            println!("not counted: {seen:?}, now {now:?}; {out:?}");
        }
        counted?;
        println!("edges {}, waits for f_pos_lock {}", seen.0, seen.1);
        // what it showed before stays there, with a word about that, until it has read something new
        let mut screen = String::new();
        wait_for("top to show the lock", PATIENCE, || {
            screen = top.screen();
            screen.contains("fdget_pos") && !screen.contains("waiting for the scheduler")
        })
        .map_err(|why| Failed::from(format!("{}:\n{screen}", why.message().unwrap_or_default())))
    };
    work()?;
    for (step, online) in [false, true].into_iter().enumerate() {
        switch_cpu(3, online)?;
        wait_for("the recorder", PATIENCE, || {
            let said = std::fs::read_to_string("/run/record.log").unwrap_or_default();
            said.matches("is back after").count() > step
        })?;
        wait_for("the metrics", PATIENCE, || count("scx_proxy_up ") == 1.0)?;
        work()?;
    }
    // a second later whatever the recorder keeps back is in the file
    std::thread::sleep(Duration::from_millis(1500));
    Ok(())
}
