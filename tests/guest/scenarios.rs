// SPDX-License-Identifier: GPL-2.0-only
//! The scenarios of `tests/scenarios` that say how (`kernel = { scale = ... }`), on the
//! real kernel: the donations and migrations that the scheduler reports are the ones that
//! the file expects, and that the model and the host-compiled C made.

use std::fmt;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libtest_mimic::Failed;
use scx_proxy::model::scenario::Scenario;

use crate::machine::{ensure, wait_for};
use crate::{sched, stage};

/// Longest time from an event to its line.
const PRINTED: Duration = Duration::from_secs(5);

/// What happened between tasks of the scenario, in order, by name.
#[derive(PartialEq, Eq)]
enum Happened {
    Donated {
        donor: String,
        owner: String,
        cpu: u32,
    },
    Migrated {
        donor: String,
        to: u32,
    },
}

impl Happened {
    fn donor(&self) -> &str {
        match self {
            Self::Donated { donor, .. } | Self::Migrated { donor, .. } => donor,
        }
    }
}

fn takes_locks(scenario: &Scenario, task: &str) -> bool {
    let mut tasks = scenario.tasks.iter().filter(|t| t.name == task);
    let is_lock = |op: &String| op.starts_with("lock ") || op.starts_with("share ");
    tasks.any(|t| t.program.iter().any(is_lock))
}

impl fmt::Debug for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Donated { donor, owner, cpu } => write!(f, "{donor} -> {owner} on {cpu}"),
            Self::Migrated { donor, to } => write!(f, "{donor} to {to}"),
        }
    }
}

/// Name and path of each scenario that can be staged, and of each that cannot be read: that
/// one's test says why.
pub fn all() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&folder);
    let entries = entries.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths = Vec::new();
    for path in entries.map(|e| e.expect("an entry of tests/scenarios").path()) {
        if read(&path).map_or(true, |scenario| scenario.kernel.is_some()) {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            paths.push((format!("scenario::{stem}"), path.clone()));
        }
    }
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<Scenario, Failed> {
    let text = fs::read_to_string(path)?;
    Ok(toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

fn scale_of(scenario: &Scenario) -> Result<u64, Failed> {
    let scale = scenario.kernel.as_ref().and_then(|how| how.get("scale"));
    let scale = scale.and_then(serde_json::Value::as_u64);
    Ok(scale.ok_or("kernel = { scale = a number } is missing")?)
}

/// Runs the scenario at `path`, and compares.
pub fn test(path: &Path) -> Result<(), Failed> {
    let scenario = read(path)?;
    let scale = scale_of(&scenario)?;
    let setup = scenario.setup().map_err(|e| e.to_string())?;
    sched::with(&[], || {
        let before = fs::metadata(sched::OUT)?.len();
        let staged = stage::run(&setup, scale)?;
        let name_of = |tid: &str| {
            let tid: u32 = tid.parse().ok()?;
            let nr = staged.tids.iter().position(|t| *t == tid)?;
            Some(scenario.tasks[nr].name.clone())
        };
        let mut happened = printed_since(before, &name_of)?;
        // whoever takes no lock in the scenario waits for one of the C library, or for memory
        happened.retain(|this| takes_locks(&scenario, this.donor()));
        // a donation that is renewed counts once, as in the model
        happened.dedup();
        println!("{happened:?}");
        compare(&scenario, &happened)
    })
}

fn read_from(offset: u64) -> std::io::Result<String> {
    let mut file = fs::File::open(sched::OUT)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// What the scheduler printed after `before` bytes, once it prints no more.
fn printed_since(
    before: u64,
    name_of: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Happened>, Failed> {
    let mut text = String::new();
    let mut quiet = 0;
    wait_for("the last events to be printed", PRINTED * 10, || {
        let now = read_from(before).unwrap_or_default();
        quiet = if now.len() == text.len() {
            quiet + 1
        } else {
            0
        };
        text = now;
        quiet > 10
    })?;
    let mut happened = Vec::new();
    for line in text.lines() {
        let field = |name: &str| {
            let start = line.split_whitespace();
            start
                .filter_map(|word| word.split_once('='))
                .find(|(key, _)| *key == name)
        };
        let name = |key| field(key).and_then(|(_, tid)| name_of(tid));
        let cpu = field("cpu").and_then(|(_, cpu)| cpu.parse().ok());
        let what = line.split_whitespace().nth(1);
        let this = match (what, name("donor"), name("owner"), cpu) {
            (Some("donate"), Some(donor), Some(owner), Some(cpu)) => {
                Happened::Donated { donor, owner, cpu }
            }
            (Some("migrate"), Some(donor), _, Some(to)) => Happened::Migrated { donor, to },
            _ => continue,
        };
        happened.push(this);
    }
    Ok(happened)
}

fn compare(scenario: &Scenario, happened: &[Happened]) -> Result<(), Failed> {
    let mut donations = Vec::new();
    let mut migrations = Vec::new();
    for this in happened {
        let list = match this {
            Happened::Donated { .. } => &mut donations,
            Happened::Migrated { .. } => &mut migrations,
        };
        if list.last() != Some(&this) {
            list.push(this);
        }
    }
    if let Some(expected) = &scenario.expect.donations {
        let same = |(e, h): (&_, &&Happened)| {
            let e: &scx_proxy::model::scenario::ExpectDonation = e;
            matches!(h, Happened::Donated { donor, owner, cpu }
                if *donor == e.donor && *owner == e.owner && e.cpu.is_none_or(|c| c == *cpu))
        };
        let all_same = expected.iter().zip(&donations).all(same);
        ensure(all_same && expected.len() == donations.len(), || {
            format!("other donations than expected: {donations:?}")
        })?;
    } else {
        ensure(!donations.is_empty(), || "nothing was donated".into())?;
    }
    if let Some(expected) = &scenario.expect.migrations {
        let same = |(e, h): (&_, &&Happened)| {
            let e: &scx_proxy::model::scenario::ExpectMigration = e;
            matches!(h, Happened::Migrated { donor, to } if *donor == e.donor && *to == e.to)
        };
        let all_same = expected.iter().zip(&migrations).all(same);
        ensure(all_same && expected.len() == migrations.len(), || {
            format!("other migrations than expected: {migrations:?}")
        })?;
    }
    Ok(())
}
