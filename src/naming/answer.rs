// SPDX-License-Identifier: GPL-2.0-only
//! Answers questions, by reading `/proc`, program files and the folders of cgroups.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{debug, warn};

use super::asked::Question;
use super::kallsyms::Found;
use super::proc;
use super::user::Programs;
use super::{cgroups, kallsyms};
use crate::abi;
use crate::events::TaskName;
use crate::events::edge;
use crate::events::{Names, Site};

/// Between two walks through all cgroups, or two readings of all symbols: each may take a while.
const PUT_OFF: Duration = Duration::from_secs(1);
/// Questions that are put off at a time; those beyond stay without an answer.
const PUT_OFF_MAX: usize = 4096;
/// What a cgroup is called that is not there any more.
const UNKNOWN: &str = "?";

/// Questions that are looked up together, now and then.
#[derive(Default)]
struct PutOff {
    keys: HashSet<u64>,
    last: Option<Instant>,
}

impl PutOff {
    /// Notes a question, if there is room.
    fn put(&mut self, key: u64) -> bool {
        let room = self.keys.len() < PUT_OFF_MAX;
        room && self.keys.insert(key)
    }

    /// The questions, if it is time for them.
    fn due(&mut self, now: Instant) -> Option<HashSet<u64>> {
        let waited = |last: Instant| now.saturating_duration_since(last) >= PUT_OFF;
        if self.keys.is_empty() || !self.last.is_none_or(waited) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.keys))
    }
}

/// A reading of all symbols, in a thread of its own: it takes seconds, and programs that wait to be named end
/// meanwhile.
struct Reading {
    /// What it is for, and which of that are locks.
    keys: HashSet<u64>,
    locks: HashSet<u64>,
    thread: JoinHandle<std::io::Result<Found>>,
    begun: Instant,
}

impl Reading {
    fn start(keys: HashSet<u64>, locks: HashSet<u64>) -> std::io::Result<Self> {
        let calls: Vec<u64> = keys.difference(&locks).copied().collect();
        let data: Vec<u64> = locks.iter().map(|lock| edge::address(*lock)).collect();
        let read = move || {
            let file = File::open("/proc/kallsyms")?;
            kallsyms::look_up(BufReader::new(file), &calls, &data)
        };
        let builder = std::thread::Builder::new().name("proxy_symbols".into());
        Ok(Self {
            keys,
            locks,
            thread: builder.spawn(read)?,
            begun: Instant::now(),
        })
    }
}

/// Answers, and remembers what it has put off.
pub struct Answerer {
    /// Return addresses, and edge words of locks: what is code is no lock.
    symbols: PutOff,
    /// Which of them are locks.
    locks: HashSet<u64>,
    /// Under way.
    reading: Option<Reading>,
    cgroups: PutOff,
    /// `None`: places in programs are not looked at.
    programs: Option<Programs>,
    /// Where cgroups are mounted, once it was looked for.
    mount_point: Option<Option<PathBuf>>,
    warned: bool,
}

impl Answerer {
    /// Nothing is put off yet. Without `programs` places in programs have no names, and no file is opened
    /// but the kernel's.
    pub fn new(programs: bool) -> Self {
        Self {
            symbols: PutOff::default(),
            locks: HashSet::new(),
            reading: None,
            cgroups: PutOff::default(),
            programs: programs.then(Programs::new),
            mount_point: None,
            warned: false,
        }
    }

    /// Whether it must be called again though nobody asks.
    pub fn has_put_off(&self) -> bool {
        !(self.symbols.keys.is_empty() && self.cgroups.keys.is_empty()) || self.reading.is_some()
    }

    /// Answers these questions, and such as were put off. What has no answer is left out.
    pub fn answer(&mut self, questions: &[Question], now: Instant) -> Names {
        let mut names = Names::default();
        if let Some(programs) = &mut self.programs {
            programs.begin();
        }
        for question in questions {
            match *question {
                Question::Task { pid, tgid } => names
                    .tasks
                    .extend(task_name(pid, tgid).map(|name| (pid, name))),
                Question::Site(site) => match site.kind {
                    abi::proxy_site_kind_SITE_KERNEL => {
                        self.symbols.put(site.at);
                    }
                    _ => {
                        let name = place(site, self.programs.as_mut());
                        names.sites.extend(name.map(|name| (site, name)));
                    }
                },
                Question::Lock(lock) => {
                    if self.symbols.put(lock) {
                        self.locks.insert(lock);
                    }
                }
                Question::Cgroup(id) => {
                    self.cgroups.put(id);
                }
            }
        }
        if let Some(reading) = self.reading.take_if(|reading| reading.thread.is_finished()) {
            self.symbols(reading, &mut names);
        }
        if self.reading.is_none()
            && let Some(keys) = self.symbols.due(now)
        {
            let locks = std::mem::take(&mut self.locks);
            match Reading::start(keys, locks) {
                Ok(reading) => self.reading = Some(reading),
                Err(e) => debug!("cannot read symbols: {e}"),
            }
        }
        if let Some(ids) = self.cgroups.due(now) {
            names.cgroups.extend(self.paths(&ids));
        }
        names
    }

    fn symbols(&mut self, reading: Reading, names: &mut Names) {
        let Reading {
            keys,
            locks,
            thread,
            begun,
        } = reading;
        let found = match thread.join() {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => return debug!("cannot read /proc/kallsyms: {e}"),
            Err(_) => return warn!("reading symbols failed: some locks will stay unknown"),
        };
        debug!(
            "{} of {} symbols found in {} ms",
            found.functions.len() + found.objects.len(),
            keys.len(),
            begun.elapsed().as_millis()
        );
        if found.hidden && !self.warned {
            self.warned = true;
            warn!(
                "/proc/kallsyms hides the kernel's addresses: locks of the kernel are called by type and \
                 address only (sysctl kernel.kptr_restrict=1 shows them to root)"
            );
        }
        let site = |at| Site {
            kind: abi::proxy_site_kind_SITE_KERNEL,
            tgid: 0,
            at,
        };
        let functions = found.functions.into_iter();
        names
            .sites
            .extend(functions.map(|(at, name)| (site(at), name)));
        for (at, name) in found.objects {
            let words = locks.iter().filter(|lock| edge::address(**lock) == at);
            names.locks.extend(words.map(|lock| (*lock, name.clone())));
        }
    }

    fn paths(&mut self, ids: &HashSet<u64>) -> Vec<(u64, String)> {
        let mount_point = self.mount_point.get_or_insert_with(|| {
            let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
            cgroups::mount_point(&mountinfo)
        });
        let wanted: Vec<u64> = ids.iter().copied().collect();
        let mut found = match mount_point {
            Some(root) => cgroups::walk(root, &wanted),
            None => Vec::new(),
        };
        let named: HashSet<u64> = found.iter().map(|(id, _)| *id).collect();
        let gone = ids.difference(&named);
        found.extend(gone.map(|id| (*id, UNKNOWN.to_owned())));
        found
    }
}

fn task_name(pid: u32, tgid: u32) -> Option<TaskName> {
    let comm = proc::comm(pid)?;
    let tgid = match tgid {
        0 => proc::process(pid)?,
        known => known,
    };
    Some(TaskName { tgid, comm })
}

/// A site that is not in the kernel.
fn place(site: Site, programs: Option<&mut Programs>) -> Option<String> {
    match site.kind {
        abi::proxy_site_kind_SITE_USER => programs?.name(site.tgid, site.at),
        abi::proxy_site_kind_SITE_MMAP => {
            let comm = proc::comm(u32::try_from(site.at).ok()?)?;
            Some(format!("mmap_lock of {comm}"))
        }
        _ => None,
    }
}
