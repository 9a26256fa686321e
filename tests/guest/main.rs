// SPDX-License-Identifier: GPL-2.0-only
//! Tests of the scheduler on a real kernel: this program runs inside a guest
//! that `scripts/vm` booted. Anywhere else each test is ignored, and says so.
//!
//! One after the other, on one scheduler: loading it takes ten seconds under
//! emulation, so tests that want the same flags share a running one.

mod agent;
mod aside;
mod behaviour;
mod beside;
mod cgroup;
mod containers;
mod cpus;
mod donation;
mod dump;
mod faults;
mod forge;
mod groups;
mod handover;
mod kvm;
mod lifecycle;
mod load;
mod locks;
mod machine;
mod opened;
mod pingpong;
mod place;
mod restart;
mod scenarios;
mod sched;
mod service;
mod shares;
mod stage;
mod tickless;
mod truth;
mod userlock;
mod verify;
mod waits;
mod watch;
mod watcher;
mod yields;

use libtest_mimic::{Arguments, Failed, Trial};

/// A test: a name, and what it does.
pub type Test = (&'static str, fn() -> Result<(), Failed>);

/// Tests that compare times, or depend on what runs first. An emulated CPU stands still for as
/// long as its host is busy with something else, so these have more than one attempt, and each that failed is
/// reported. Not so on a clock that the host has no part in.
const TIMED: [&str; 14] = [
    "agent::",
    "beside::",
    "containers::",
    "donation::",
    "forge::",
    "handover::",
    "kinds::",
    "locks::",
    "modules::",
    "place::",
    "scenario::",
    "switches::",
    "unowned::",
    "watch::",
];

/// Of some 100 such tests, on a busy host, one in 30 fails by chance: with two attempts each that is one run of
/// all in ten.
const ATTEMPTS: [&str; 2] = ["second", "third"];

fn attempts(name: &str, test: impl Fn() -> Result<(), Failed>) -> Result<(), Failed> {
    let timed = !machine::is_even() && TIMED.iter().any(|prefix| name.starts_with(prefix));
    let mut result = test();
    for attempt in ATTEMPTS.iter().filter(|_| timed) {
        let Err(why) = &result else { break };
        println!(
            "{attempt} attempt of {name}, since the one before failed: {}",
            why.message().unwrap_or("no reason given")
        );
        result = test();
    }
    told(result)
}

/// The harness gives reasons at the end only, far from the test in a long log.
fn told(result: Result<(), Failed>) -> Result<(), Failed> {
    if let Err(why) = &result {
        println!("failed: {}", why.message().unwrap_or("no reason given"));
    }
    result
}

/// Needs `task->blocked_on` (6.17); on other kernels its tests would repeat others.
const BLOCKED_ON_ONLY: [&str; 1] = ["switches::tracepoint_path_donates_too"];

fn trial(name: &str, test: impl Fn() -> Result<(), Failed> + Send + 'static) -> Trial {
    let named = name.to_owned();
    let trial = Trial::test(name, move || attempts(&named, test));
    let device = locks::DEVICES.iter().find(|(test, ..)| *test == name);
    let reason = if !machine::in_guest() {
        Some("runs in a guest: scripts/test")
    } else if let Some(unfit) = [
        beside::unfit,
        place::unfit,
        cpus::unfit,
        tickless::unfit,
        truth::unfit,
        yields::unfit,
    ]
    .iter()
    .find_map(|unfit| unfit(name))
    {
        Some(unfit)
    } else if device.is_some_and(|(_, _, path)| !std::path::Path::new(path).exists()) {
        Some("this kernel has no such module")
    } else if BLOCKED_ON_ONLY.contains(&name) && !machine::has_blocked_on() {
        Some("the tracepoint path is the only one on this kernel")
    } else {
        None
    };
    if let Some(reason) = reason {
        println!("skipped: {name}: {reason}");
    }
    trial.with_ignored_flag(reason.is_some())
}

/// In the order in which the scheduler has to be loaded least often: first what runs on the
/// default flags.
const ON_DEFAULTS: [&[Test]; 30] = [
    beside::TESTS,
    beside::UNDER_LAVD,
    aside::TESTS,
    truth::REFUSED,
    truth::WORKS,
    verify::TESTS,
    lifecycle::FIRST,
    truth::BESIDE,
    shares::TESTS,
    groups::TESTS,
    place::TESTS,
    tickless::TESTS,
    yields::TESTS,
    donation::TESTS,
    donation::BEYOND,
    locks::TESTS,
    locks::MORE,
    locks::NEVER,
    locks::MODULES,
    waits::TESTS,
    containers::TESTS,
    forge::TESTS,
    handover::TESTS,
    watch::TESTS,
    watcher::TESTS,
    beside::ON_DEFAULTS,
    dump::TESTS,
    behaviour::TESTS,
    faults::TESTS,
    agent::TESTS,
];
const AFTERWARDS: [&[Test]; 18] = [
    lifecycle::HOTPLUG,
    restart::TESTS,
    cpus::TESTS,
    donation::TRACEPOINT,
    watch::QUIET,
    shares::STARVE,
    place::STARVE,
    agent::ON_NARROW,
    locks::CHOSEN,
    watcher::UNREAD,
    locks::ASKED_FOR,
    lifecycle::KILL_9,
    donation::OFF,
    lifecycle::CTRL_C,
    faults::ANOTHER_LOAD,
    behaviour::LAST,
    service::TESTS,
    truth::LOCKED_DOWN,
];

/// A filter may hold several texts, separated by commas: tests that hold any of them run, and none that
/// holds one with `!` in front. With such only, all others run.
fn choose(args: &mut Arguments, trials: &mut Vec<Trial>) {
    let Some(filter) = args.filter.take() else {
        return;
    };
    let (not, texts): (Vec<&str>, Vec<&str>) =
        filter.split(',').partition(|text| text.starts_with('!'));
    let holds = |trial: &Trial, text: &str| trial.name().contains(text);
    trials.retain(|trial| {
        (texts.is_empty() || texts.iter().any(|text| holds(trial, text)))
            && !not.iter().any(|text| holds(trial, &text[1..]))
    });
}

fn main() {
    pingpong::run_if_asked();
    containers::run_if_asked();
    faults::run_if_asked();
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    if machine::in_guest() {
        // programs attach to what is there when the scheduler is loaded
        let modules = locks::DEVICES.iter().map(|(_, module, _)| *module);
        for module in modules.chain(kvm::MODULES) {
            let _ = machine::run(&["modprobe", "-q", module]);
        }
    }
    let plain = |tests: &[&[Test]]| {
        let tests = tests.concat().into_iter();
        tests
            .map(|(name, test)| trial(name, test))
            .collect::<Vec<_>>()
    };
    let mut trials = plain(&ON_DEFAULTS);
    for (name, path) in scenarios::all() {
        trials.push(trial(&name, move || scenarios::test(&path)));
    }
    trials.extend(plain(&AFTERWARDS));
    choose(&mut args, &mut trials);
    let conclusion = libtest_mimic::run(&args, trials);
    sched::stop();
    conclusion.exit();
}
