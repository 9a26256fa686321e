// SPDX-License-Identifier: GPL-2.0-only
//! Schedules of a few CPUs, one after the other, by depth first: which CPU goes on at each
//! access to what more than one of them accesses, and at least one writes. A CPU that could
//! go on is interrupted so many times at the most (bounded preemption, as CHESS has it).
//!
//! Each CPU is a coroutine, so a schedule is one thread and repeatable. What has been accessed
//! by several CPUs is learned as schedules run; as long as that grows, all is begun anew. Two
//! prefixes in which every access saw the same writes lead to the same state (their
//! happens-before relations are equal): the second one is not followed.
//!
//! Accesses are sequentially consistent. What a store buffer could delay is not explored.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::object::{Api, Memory};

/// Bytes that count as one place.
const GRANULE: usize = 4;
const STACK_BYTES: usize = 256 << 10;
/// Accesses of one schedule to what is shared; beyond that a loop has no end.
pub const ACCESSES_MAX: u32 = 100_000;

thread_local! {
    static NOW: Cell<*mut Explorer> = const { Cell::new(ptr::null_mut()) };
}

/// The keys are hashes already.
#[derive(Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

type Hashed = BuildHasherDefault<Identity>;

fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 29
}

/// A place in memory, of the policy or of the machine.
#[derive(Clone, Copy, Default)]
pub struct Place {
    /// CPUs that accessed it, or wrote, in this schedule.
    pub accessed: u8,
    pub written: u8,
    /// More than one CPU does, in some schedule, and one writes.
    pub shared: bool,
    /// Hashes of the last write, and of the reads since.
    pub last_write: u64,
    pub reads: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    Ready,
    /// Until somebody writes there, or unlocks it.
    Blocked(usize),
    Done,
}

pub struct CpuRun {
    pub status: Status,
    pub yielder: *const Yielder<(), ()>,
    /// Hash of its last access, and so of all that this one depends on.
    pub last: u64,
}

/// Kinds of decisions: the current CPU goes on or is preempted; it cannot go on.
pub const PREEMPT: u64 = 1;
const FREE: u64 = 2;

/// A decision.
#[derive(Default)]
pub struct Node {
    pub options: [u8; 4],
    pub nr: usize,
    pub at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing is looked at.
    Off,
    /// One CPU at a time; writes are noted to be undone.
    Sequential,
    Concurrent,
}

struct Range {
    at: usize,
    end: usize,
    first: usize,
    /// Whether it counts as shared at all.
    explored: bool,
}

/// What came of all schedules of a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Schedules that ran, those given up because what they led to was known included.
    pub schedules: u64,
    /// Ways in which it ended that differ in what some access saw.
    pub ends: u64,
    /// Places that more than one CPU accesses.
    pub shared: u64,
    /// Decisions of the longest schedule.
    pub points: usize,
}

/// What a program is to the explorer.
pub trait Program {
    /// Back to where the CPUs begin.
    fn reset(&self);
    /// What `cpu` does.
    fn run(&self, cpu: usize);
    /// All CPUs are done: is all right, and does it stay so?
    fn judge(&self) -> Result<(), String>;
}

pub struct Explorer {
    ranges: Vec<Range>,
    pub places: Vec<Place>,
    pub first_of_machine: usize,
    pub touched: Vec<usize>,
    pub phase: Phase,
    pub undo: Vec<(*mut u64, u64)>,
    pub locks: HashMap<usize, usize>,
    pub cpus: Vec<CpuRun>,
    pub current: usize,
    pub preemptions: u32,
    pub preemptions_max: u32,
    pub stack: Vec<Node>,
    pub depth: usize,
    pub points: usize,
    pub digest_begun: u64,
    pub accesses: u32,
    pub given_up: bool,
    pub failed: Option<String>,
    pub visited: HashMap<u64, u32, Hashed>,
    pub ends: HashSet<u64, Hashed>,
    pub grew: bool,
    pub free_stacks: Vec<DefaultStack>,
    /// Where CPUs were switched in this schedule: from, to, before which access, in which code.
    pub switches: Vec<(usize, usize, usize, usize)>,
}

impl Explorer {
    /// `memory` is what the policy shares; its last range is not explored. The machine has
    /// `places` of its own.
    pub fn new(memory: &[Memory], places: usize) -> Box<Self> {
        let mut first = 0;
        let mut ranges = Vec::new();
        for (nr, range) in memory.iter().enumerate() {
            ranges.push(Range {
                at: range.at,
                end: range.at + range.size,
                first,
                explored: nr + 1 < memory.len(),
            });
            first += range.size.div_ceil(GRANULE);
        }
        Box::new(Self {
            ranges,
            places: vec![Place::default(); first + places],
            first_of_machine: first,
            touched: Vec::new(),
            phase: Phase::Off,
            undo: Vec::new(),
            locks: HashMap::new(),
            cpus: Vec::new(),
            current: 0,
            preemptions: 0,
            preemptions_max: 0,
            stack: Vec::new(),
            depth: 0,
            points: 0,
            digest_begun: 0,
            accesses: 0,
            given_up: false,
            failed: None,
            visited: HashMap::default(),
            ends: HashSet::default(),
            grew: false,
            free_stacks: Vec::new(),
            switches: Vec::new(),
        })
    }

    /// From here on hooks of this thread lead to it, and writes can be undone.
    pub fn begin(&mut self) {
        NOW.set(ptr::from_mut(self));
        self.phase = Phase::Sequential;
        self.digest_begun = self.digest();
    }

    /// Of all memory that the policy shares.
    fn digest(&self) -> u64 {
        let words = self
            .ranges
            .iter()
            .flat_map(|r| (r.at..r.end & !7).step_by(8));
        // SAFETY: aligned words of the policy's memory.
        words.fold(0, |hash, at| mix(hash, unsafe { *(at as *const u64) }))
    }

    /// All that was written since [`Explorer::begin`] is as it was then.
    fn undo(&mut self) {
        for (at, old) in self.undo.drain(..).rev() {
            // SAFETY: it was an aligned word of the policy's memory when it was noted.
            unsafe { at.write(old) };
        }
        for &place in &self.touched {
            let place = &mut self.places[place];
            *place = Place {
                shared: place.shared,
                ..Place::default()
            };
        }
        self.touched.clear();
        self.locks.clear();
        self.switches.clear();
    }

    /// The next schedule: another choice at the last decision that has one. False: there is none.
    fn next(&mut self) -> bool {
        while let Some(node) = self.stack.last_mut() {
            node.at += 1;
            if node.at < node.nr {
                return true;
            }
            self.stack.pop();
        }
        false
    }

    fn begin_schedule(&mut self, nr_cpus: usize) -> Vec<DefaultStack> {
        self.depth = 0;
        self.points = 0;
        self.accesses = 0;
        self.given_up = false;
        self.preemptions = self.preemptions_max;
        self.cpus.clear();
        let stack = |cpu: usize| {
            self.cpus.push(CpuRun {
                status: Status::Ready,
                yielder: ptr::null(),
                last: mix(cpu as u64, 1),
            });
            let new = || DefaultStack::new(STACK_BYTES).expect("memory for a stack");
            self.free_stacks.pop().unwrap_or_else(new)
        };
        (0..nr_cpus).map(stack).collect()
    }

    pub fn goes_on(&self) -> bool {
        !self.given_up && self.failed.is_none()
    }

    /// What has happened so far, as far as any access saw it.
    fn state(&self) -> u64 {
        self.cpus.iter().fold(0, |hash, cpu| {
            let status = match cpu.status {
                Status::Ready => 0,
                Status::Blocked(at) => at as u64 + 2,
                Status::Done => 1,
            };
            mix(mix(hash, cpu.last), status)
        })
    }

    /// The current CPU cannot go on: one of the others. `None`: there is none, or this state is known.
    pub fn choose_free(&mut self) -> Option<usize> {
        let mut node = Node::default();
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].status == Status::Ready {
                node.options[node.nr] = cpu as u8;
                node.nr += 1;
            }
        }
        if node.nr == 0 {
            let stuck = self.cpus.iter().any(|cpu| cpu.status != Status::Done);
            if stuck && self.failed.is_none() {
                self.failed = Some("deadlock: each CPU waits for another".to_owned());
            }
            return None;
        }
        self.choose(node, FREE)
    }

    pub fn choose(&mut self, node: Node, kind: u64) -> Option<usize> {
        if node.nr == 1 {
            return Some(usize::from(node.options[0]));
        }
        if self.depth == self.stack.len() {
            let key = mix(mix(self.state(), self.current as u64), kind);
            let left = self.preemptions + 1;
            let known = self.visited.entry(key).or_insert(0);
            if *known >= left {
                self.given_up = true;
                return None;
            }
            *known = left;
            self.stack.push(node);
        }
        let node = &self.stack[self.depth];
        self.depth += 1;
        self.points = self.points.max(self.depth);
        Some(usize::from(node.options[node.at]))
    }

    pub fn places_of(&self, at: usize, size: usize) -> Option<(usize, usize, bool)> {
        let range = self.ranges.iter().find(|r| at >= r.at && at < r.end)?;
        let first = range.first + (at - range.at) / GRANULE;
        let last = range.first + (at + size - 1 - range.at) / GRANULE;
        Some((first, last, range.explored))
    }

    /// The current CPU accesses these places now.
    pub fn note(&mut self, first: usize, last: usize, write: bool) {
        let me = self.current;
        for at in first..=last {
            let place = &mut self.places[at];
            if place.accessed == 0 {
                self.touched.push(at);
            }
            place.accessed |= 1 << me;
            place.written |= u8::from(write) << me;
            if !place.shared {
                let several = place.accessed.count_ones() > 1 && place.written != 0;
                place.shared = several;
                self.grew |= several;
            }
            let hash = mix(
                mix(self.cpus[me].last, at as u64 * 2 + u64::from(write)),
                place.last_write,
            );
            if write {
                let hash = mix(hash, place.reads);
                place.last_write = hash;
                place.reads = 0;
                self.cpus[me].last = hash;
                for cpu in &mut self.cpus {
                    if cpu.status == Status::Blocked(at) {
                        cpu.status = Status::Ready;
                    }
                }
            } else {
                place.reads = place.reads.wrapping_add(hash);
                self.cpus[me].last = hash;
            }
        }
    }

    pub fn note_undo(&mut self, at: usize, size: usize) {
        let mut word = at & !7;
        while word < at + size {
            let word_at = word as *mut u64;
            // SAFETY: a word of the policy's memory, whose parts are aligned to 8 bytes.
            self.undo.push((word_at, unsafe { word_at.read() }));
            word += 8;
        }
    }

    fn report(&self, what: &str, api: &Api, name: &dyn Fn(usize) -> String) -> String {
        use std::fmt::Write;
        let mut text = format!("{what}\n");
        for &(from, to, place, code) in &self.switches {
            let place = match self.ranges.iter().rev().find(|r| place >= r.first) {
                _ if place >= self.first_of_machine => {
                    format!("machine {}", place - self.first_of_machine)
                }
                Some(range) => name(range.at + (place - range.first) * GRANULE),
                None => String::new(),
            };
            let code = code.saturating_sub(api.base + 1);
            let lines = std::process::Command::new("addr2line")
                .args(["-i", "-s", "-e"])
                .arg(&api.file)
                .arg(format!("{code:#x}"))
                .output();
            let lines = lines.map(|o| String::from_utf8_lossy(&o.stdout).replace('\n', " "));
            let lines = lines.unwrap_or_default();
            let _ = writeln!(text, "  CPU {from} -> {to} before {place}: {lines}");
        }
        text
    }
}

/// Runs all schedules of `nr_cpus` with up to `preemptions_max` preemptions. An error names what
/// was wrong and the schedule.
pub fn explore(
    program: &dyn Program,
    nr_cpus: usize,
    preemptions_max: u32,
    api: &Api,
    name: &dyn Fn(usize) -> String,
) -> Result<Found, String> {
    let mut found = Found::default();
    // shared places show with few preemptions already
    for bound in 0..=preemptions_max {
        loop {
            here(|x| {
                x.preemptions_max = bound;
                x.grew = false;
                x.visited.clear();
                x.ends.clear();
                x.stack.clear();
            });
            loop {
                found.schedules += 1;
                one(program, nr_cpus);
                let report = here(|x| x.failed.take().map(|what| x.report(&what, api, name)));
                if let Some(report) = report {
                    return Err(report);
                }
                found.points = found.points.max(here(|x| x.points));
                // if it grew, the decisions so far are at other places now
                if !here(|x| !x.grew && x.next()) {
                    break;
                }
            }
            if !here(|x| x.grew) {
                break;
            }
        }
    }
    here(Explorer::undo);
    assert!(
        here(|x| x.digest_begun == x.digest()),
        "a write was not seen"
    );
    here(|x| {
        found.ends = x.ends.len() as u64;
        found.shared = x.places.iter().filter(|p| p.shared).count() as u64;
    });
    Ok(found)
}

/// One schedule. No borrow of the explorer lives while a CPU runs.
fn one(program: &dyn Program, nr_cpus: usize) {
    here(Explorer::undo);
    program.reset();
    let stacks = here(|x| x.begin_schedule(nr_cpus));
    let coroutine = |(cpu, stack): (usize, DefaultStack)| {
        // SAFETY: the coroutine is finished or reset before this function returns.
        let program: &'static dyn Program = unsafe { std::mem::transmute(program) };
        Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, (): ()| {
            here(|x| x.cpus[cpu].yielder = ptr::from_ref(yielder));
            program.run(cpu);
        })
    };
    let mut coroutines: Vec<_> = stacks.into_iter().enumerate().map(coroutine).collect();
    here(|x| x.phase = Phase::Concurrent);
    let mut next = here(Explorer::choose_free);
    while let Some(cpu) = next {
        here(|x| x.current = cpu);
        let result = coroutines[cpu].resume(());
        next = here(|x| match result {
            _ if !x.goes_on() => None,
            CoroutineResult::Yield(()) => Some(x.current),
            CoroutineResult::Return(()) => {
                x.cpus[cpu].status = Status::Done;
                x.choose_free()
            }
        });
    }
    here(|x| x.phase = Phase::Sequential);
    for mut coroutine in coroutines {
        if coroutine.started() && !coroutine.done() {
            // SAFETY: its frames are C, and Rust that holds nothing to be dropped where it rests.
            unsafe { coroutine.force_reset() };
        }
        if coroutine.done() {
            here(|x| x.free_stacks.push(coroutine.into_stack()));
        }
    }
    let ended = |x: &mut Explorer| x.goes_on() && x.ends.insert(x.state());
    if here(ended) {
        here(|x| x.locks.clear());
        let judged = program.judge();
        here(|x| x.failed = judged.err());
    }
}

impl Drop for Explorer {
    fn drop(&mut self) {
        NOW.set(ptr::null_mut());
    }
}

/// The explorer of this thread. `f` runs no CPU.
pub fn here<T>(f: impl FnOnce(&mut Explorer) -> T) -> T {
    // SAFETY: it is there from begin() until it is dropped, and is borrowed in here only.
    f(unsafe { &mut *NOW.get() })
}

pub fn phase() -> Phase {
    // SAFETY: as in here().
    unsafe { NOW.get().as_ref() }.map_or(Phase::Off, |x| x.phase)
}
