// SPDX-License-Identifier: GPL-2.0-only
//! Names of what this machine has.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::abi;

fn event() -> abi::proxy_event {
    let pid = std::process::id();
    abi::proxy_event {
        kind: abi::proxy_event_kind_EVENT_BLOCK,
        pid,
        tgid: pid,
        ..Default::default()
    }
}

#[inline(never)]
fn somewhere_in_this_program() -> u64 {
    std::hint::black_box(somewhere_in_this_program as *const () as u64)
}

fn site_name(event: &abi::proxy_event) -> Option<String> {
    let event = Event::from(*event);
    let names = names_of(&[event]);
    let found = names.sites.into_iter();
    found
        .filter(|(site, _)| *site == event.about().site)
        .map(|(_, name)| name)
        .next()
}

#[test]
fn places_in_programs_are_named() {
    let exe = std::env::current_exe().expect("own program");
    let binary = exe
        .file_name()
        .expect("name")
        .to_string_lossy()
        .into_owned();
    let user = abi::proxy_event {
        site_kind: abi::proxy_site_kind_SITE_USER,
        site: somewhere_in_this_program() + 1,
        ..event()
    };
    let name = site_name(&user).expect("a name");
    assert!(name.starts_with(&format!("{binary}+0x")), "{name}");
    let function = "(scx_proxy::naming::tests::somewhere_in_this_program)";
    assert!(name.ends_with(function), "{name}");
    let nowhere = abi::proxy_event { site: 0, ..user };
    assert_eq!(site_name(&nowhere), Some(binary));
    let mmap = abi::proxy_event {
        site_kind: abi::proxy_site_kind_SITE_MMAP,
        site: u64::from(std::process::id()),
        ..event()
    };
    let comm = std::fs::read_to_string("/proc/self/comm").expect("comm");
    let expected = format!("mmap_lock of {}", comm.trim_end());
    assert_eq!(site_name(&mmap), Some(expected));
}

#[test]
fn the_cgroup_of_this_process_is_named() {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    // a machine without the unified hierarchy has no such cgroups
    let (Some(root), Some(own)) = (cgroups::mount_point(&mountinfo), own) else {
        return;
    };
    let id = std::fs::metadata(format!("{}{own}", root.display()))
        .expect("folder")
        .ino();
    let gone = u64::MAX;
    let names = names_of(&[Event::from(abi::proxy_event {
        cgroup: id,
        other_cgroup: gone,
        ..event()
    })]);
    let path = |id| names.cgroups.iter().find(|(i, _)| *i == id);
    assert_eq!(path(id).map(|(_, path)| path.as_str()), Some(own));
    assert_eq!(path(gone).map(|(_, path)| path.as_str()), Some("?"));
}

#[test]
fn names_come_without_waiting_for_them() {
    let mut namer = Namer::start().expect("a thread");
    let event = abi::proxy_event {
        other: u32::MAX,
        ..event()
    };
    namer.ask(&[event.into(); 3]);
    let begun = Instant::now();
    let mut names = namer.take();
    while names.is_empty() && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(5));
        names = namer.take();
    }
    let pid = std::process::id();
    assert_eq!(names.tasks.len(), 1, "asked once, and the other is none");
    assert_eq!((names.tasks[0].0, names.tasks[0].1.tgid), (pid, pid));
    drop(namer);
}

/// `scripts/vm 7.3 -- TEST_BINARY naming::tests::kernel --ignored --nocapture`, as root.
#[test]
#[ignore = "needs root and a kernel that shows its symbols"]
fn kernel_addresses_are_named() {
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("symbols");
    let address = |wanted: &str| {
        let line = symbols
            .lines()
            .find(|line| line.split_whitespace().nth(2) == Some(wanted))?;
        u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
    };
    for function in ["mutex_lock", "schedule", "vfs_read"] {
        let kernel = abi::proxy_event {
            site_kind: abi::proxy_site_kind_SITE_KERNEL,
            site: address(function).expect("its address") + 8,
            ..event()
        };
        let begun = Instant::now();
        assert_eq!(site_name(&kernel).as_deref(), Some(function));
        println!("{function}: {} ms", begun.elapsed().as_millis());
    }
    // not every kernel lists its data
    let Some(lock) = address("cgroup_mutex") else {
        return println!("no static locks in this kernel's symbols");
    };
    let slab = 0xffff_8880_0123_4560;
    let events =
        [lock, lock + 0x10, slab].map(|lock| Event::from(abi::proxy_event { lock, ..event() }));
    let names = names_of(&events).locks;
    println!("{names:?}");
    assert!(
        names.contains(&(lock, "cgroup_mutex".to_owned())),
        "{names:?}"
    );
    assert!(names.iter().all(|(lock, _)| *lock != slab), "{names:?}");
}

#[test]
fn walks_are_put_off_until_the_last_was_a_while_ago() {
    let (mut answerer, now) = (Answerer::new(true), Instant::now());
    let gone = |id| [Question::Cgroup(id)];
    assert_eq!(answerer.answer(&gone(u64::MAX), now).cgroups.len(), 1);
    assert!(answerer.answer(&gone(u64::MAX - 1), now).is_empty());
    assert!(answerer.has_put_off());
    let later = answerer.answer(&[], now + Duration::from_secs(1));
    assert_eq!(later.cgroups, [(u64::MAX - 1, "?".to_owned())]);
    assert!(!answerer.has_put_off());
}

/// `cargo test --release --lib naming -- --ignored --nocapture cost`
#[test]
#[ignore = "prints times, judges nothing"]
fn cost_of_asking() {
    let mut namer = Namer::start().expect("a thread");
    let user = abi::proxy_event {
        site_kind: abi::proxy_site_kind_SITE_USER,
        other: 1,
        cgroup: 1,
        other_cgroup: 2,
        ..event()
    };
    let events = vec![Event::from(user); 1_000_000];
    let begun = Instant::now();
    namer.ask(&events);
    let each = begun.elapsed().as_nanos() / 1_000_000;
    println!("{each} ns per event whose names were all asked for");
}

/// A thread that is held up is left behind, and there are names again; held up again and again, it is left
/// alone in the end.
#[test]
fn a_thread_that_is_held_up_is_replaced() {
    let mut namer = Namer::start().expect("a thread");
    namer.stuck_after = Duration::from_millis(200);
    let hold_up = |namer: &Namer| {
        let helper = namer.helper.as_ref().expect("a thread");
        helper.busy_ms.store(1, Ordering::Relaxed);
    };
    for left_behind in 1..LEFT_BEHIND_MAX {
        std::thread::sleep(Duration::from_millis(300));
        hold_up(&namer);
        namer.ask(&[event().into()]);
        assert_eq!(namer.left_behind, left_behind);
        // what was asked of the one before is asked again
        std::thread::sleep(Duration::from_millis(100));
        assert!(!namer.take().tasks.is_empty());
        assert_eq!(
            namer.helper.as_ref().map(Helper::busy_for),
            Some(Duration::ZERO)
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    hold_up(&namer);
    namer.ask(&[event().into()]);
    assert!(namer.helper.is_none() && namer.take().is_empty());
}
