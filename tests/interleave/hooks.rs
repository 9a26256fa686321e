// SPDX-License-Identifier: GPL-2.0-only
//! Where a CPU comes to the explorer: before each access of the policy to memory, at its locks, and
//! at those of the machine. Here another one may go on.

use std::ffi::{c_int, c_ulong, c_void};

use crate::explore::{ACCESSES_MAX, Node, PREEMPT, Phase, Status, here, phase};

/// The coroutine of `cpu`, in which this runs, rests until it is chosen again.
fn rest(cpu: usize) {
    let yielder = here(|x| x.cpus[cpu].yielder);
    // SAFETY: it lives as long as its coroutine.
    unsafe { &*yielder }.suspend(());
}

/// Another CPU may go on before the current one accesses what is shared.
fn point(place: usize, code: usize) {
    let me = here(|x| x.current);
    let switches = here(|x| {
        if x.preemptions == 0 {
            return false;
        }
        let mut node = Node::default();
        let ready = |cpu: &usize| *cpu == me || x.cpus[*cpu].status == Status::Ready;
        // to go on comes first
        for cpu in (0..x.cpus.len())
            .map(|n| (me + n) % x.cpus.len())
            .filter(ready)
        {
            node.options[node.nr] = cpu as u8;
            node.nr += 1;
        }
        match x.choose(node, PREEMPT) {
            Some(cpu) if cpu == me => false,
            Some(cpu) => {
                x.preemptions -= 1;
                x.switches.push((me, cpu, place, code));
                x.current = cpu;
                true
            }
            None => true,
        }
    });
    if switches {
        rest(me);
    }
}

/// The current CPU waits for `place`; another one goes on.
fn block(place: usize, code: usize) {
    let me = here(|x| x.current);
    here(|x| {
        x.cpus[me].status = Status::Blocked(place);
        if let Some(cpu) = x.choose_free() {
            x.switches.push((me, cpu, place, code));
            x.current = cpu;
        }
    });
    rest(me);
}

fn access(first: usize, last: usize, write: bool, code: usize) {
    if here(|x| x.places[first..=last].iter().any(|p| p.shared)) {
        here(|x| {
            x.accesses += 1;
            if x.accesses > ACCESSES_MAX && x.failed.is_none() {
                x.failed = Some("a loop without end".to_owned());
            }
        });
        if !here(|x| x.goes_on()) {
            rest(here(|x| x.current));
        }
        point(first, code);
    }
    here(|x| x.note(first, last, write));
}

/// A lock, by the place that it stands at.
fn lock(place: usize, code: usize) {
    if here(|x| x.places[place].shared) {
        point(place, code);
    }
    while here(|x| x.locks.contains_key(&place)) {
        block(place, code);
    }
    here(|x| {
        let me = x.current;
        x.locks.insert(place, me);
        x.note(place, place, true);
    });
}

fn unlock(place: usize) {
    here(|x| {
        let me = x.current;
        if x.locks.remove(&place) != Some(me) && x.failed.is_none() {
            x.failed = Some("a lock was released by who does not have it".to_owned());
        }
        x.note(place, place, true);
    });
}

pub extern "C" fn hook_access(at: *const c_void, size: c_ulong, write: c_int, code: *const c_void) {
    let (at, size, write) = (at as usize, size as usize, write != 0);
    let phase = phase();
    if phase == Phase::Off || size == 0 {
        return;
    }
    let Some((first, last, explored)) = here(|x| x.places_of(at, size)) else {
        return;
    };
    if phase == Phase::Concurrent && explored {
        access(first, last, write, code as usize);
    }
    if write {
        here(|x| x.note_undo(at, size));
    }
}

/// The place of a lock of the policy, while CPUs run side by side.
fn lock_place(at: *const c_void) -> Option<usize> {
    if phase() != Phase::Concurrent {
        return None;
    }
    here(|x| x.places_of(at as usize, 1)).map(|(first, ..)| first)
}

pub extern "C" fn hook_lock(at: *const c_void, code: *const c_void) {
    if let Some(place) = lock_place(at) {
        lock(place, code as usize);
    }
}

pub extern "C" fn hook_unlock(at: *const c_void) {
    if let Some(place) = lock_place(at) {
        unlock(place);
    }
}

/// The place of the machine with that number, while CPUs run side by side.
fn machine_place(nr: usize) -> Option<usize> {
    (phase() == Phase::Concurrent).then(|| here(|x| x.first_of_machine) + nr)
}

/// Of the machine: its place `nr` is read or written now.
pub fn machine_access(nr: usize, write: bool) {
    if let Some(place) = machine_place(nr) {
        access(place, place, write, 0);
    }
}

pub fn machine_lock(nr: usize) {
    if let Some(place) = machine_place(nr) {
        lock(place, 0);
    }
}

pub fn machine_unlock(nr: usize) {
    if let Some(place) = machine_place(nr) {
        unlock(place);
    }
}

/// Waits until `holds`, which is looked at again when somebody writes place `nr`.
pub fn machine_wait(nr: usize, holds: impl Fn() -> bool) {
    machine_access(nr, false);
    while !holds() {
        let place = machine_place(nr).expect("nobody else could change that");
        block(place, 0);
        machine_access(nr, false);
    }
}

/// The CPU that runs, while several do.
pub fn concurrent_cpu() -> Option<usize> {
    (phase() == Phase::Concurrent).then(|| here(|x| x.current))
}
