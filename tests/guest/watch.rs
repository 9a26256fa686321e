// SPDX-License-Identifier: GPL-2.0-only
//! What there is to see of a scheduler that runs: inversion time against what `inversion` measured
//! from outside, names of locks, the switch, recordings, metrics, deadlocks. All on one scheduler.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use scx_proxy::cli::SOCKET;
use scx_proxy::client::Client;
use scx_proxy::events::{Ended, Event, What};
use serde_json::Value;

use crate::Test;
use crate::load::Load;
use crate::machine::{ensure, has_mutex_owner, read, wait_for};
use crate::pingpong;
use crate::sched::{self, SCX_PROXY, Stats};

pub const TESTS: &[Test] = &[
    ("watch::f_pos_lock", || {
        seen("f_pos_lock", "mutex fdget_pos")
    }),
    ("watch::seq_file", || {
        seen("seq_file", "mutex seq_read_iter")
    }),
    ("watch::i_rwsem", || seen("i_rwsem", "rwsem do_truncate")),
    ("watch::mmap_lock", || {
        seen("mmap_lock", "rwsem mmap_lock of inversion")
    }),
    ("watch::pthread", || seen("pthread", "pthread inversion+0x")),
    ("watch::pi_mutex", || {
        seen("pi_mutex", "rtmutex inversion+0x")
    }),
    ("watch::chain", || seen("chain", "mutex ")),
    ("watch::observing_and_switching", observing_and_switching),
    (
        "watch::switched_on_in_the_middle_of_a_wait",
        switched_on_in_the_middle_of_a_wait,
    ),
    ("watch::recordings_and_metrics", recordings_and_metrics),
    ("watch::time_given_is_time_got", time_given_is_time_got),
    ("watch::bugreport", bugreport),
    (
        "watch::a_deadlock_is_reported_once",
        a_deadlock_is_reported_once,
    ),
];

/// On other flags than the rest.
pub const QUIET: &[Test] = &[("watch::events_are_not_lost", events_are_not_lost)];

const INVERSION: &str = env!("CARGO_BIN_EXE_inversion");
const TRIALS: usize = 2;
/// What the report may be off, of the inversion time as measured from outside.
const OFF_MAX: f64 = 0.05;
/// While donating there is little of it, and what the waiter does between its clock and its sleep counts:
/// of the wait, then.
const OFF_OF_WAIT_MAX: f64 = 0.1;
/// Of a wait, what the waiter may be awake at the most.
const AWAKE_MAX: f64 = 0.5;
const PATIENCE: Duration = Duration::from_secs(30);

pub fn client() -> Result<Client, Failed> {
    Client::connect(Path::new(SOCKET)).map_err(|e| format!("{e:#}").into())
}

fn said<T>(result: anyhow::Result<T>) -> Result<T, Failed> {
    result.map_err(|e| format!("{e:#}").into())
}

/// A client that follows, as long as it asks now and then: while nobody does, there are few events.
pub fn follower() -> Result<Client, Failed> {
    let mut client = client()?;
    said(client.batch())?;
    Ok(client)
}

fn inversion(lock: &str, critical_ms: &str, trials: usize) -> Command {
    let mut command = Command::new(INVERSION);
    let trials = trials.to_string();
    command
        .args([
            "--lock",
            lock,
            "--topology",
            "cross",
            "--hogs",
            "1",
            "--json",
            "-",
        ])
        .args(["--critical-ms", critical_ms, "--trials", &trials])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A trial as seen from outside: how long the wait was, how long the owner could have run and
/// did not, and how long the waiter itself was awake, in ns; and its factor.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub wait_ns: f64,
    pub inverted_ns: f64,
    pub awake_ns: f64,
    pub factor: f64,
}

impl Trial {
    /// What a report of its inversion time is off, in ns. While the waiter did not sleep yet the owner may have run: from
    /// outside that counts as needed and as awake, so the inversion time is only known to be in between.
    pub fn off(&self, reported: &Ended) -> f64 {
        let seen = reported.inverted_ns as f64;
        seen - seen.clamp(self.inverted_ns, self.inverted_ns + self.awake_ns)
    }

    pub fn inverted(&self) -> String {
        let ms = |ns| ns / 1e6;
        let most = self.inverted_ns + self.awake_ns;
        format!("{:.1} to {:.1} ms", ms(self.inverted_ns), ms(most))
    }
}

fn trials_of(child: Child) -> Result<Vec<Trial>, Failed> {
    let out = child.wait_with_output()?;
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    let json: Value = serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {why}"))?;
    let trials = json["scenarios"][0]["trials"].as_array();
    let number = |trial: &Value, name: &str| trial[name].as_f64().unwrap_or(0.0);
    let trials: Vec<_> = trials
        .ok_or(format!("no trials: {why}"))?
        .iter()
        .map(|trial| Trial {
            wait_ns: number(trial, "wait_ms") * 1e6,
            inverted_ns: number(trial, "inverted_ms") * 1e6,
            awake_ns: number(trial, "awake_ms") * 1e6,
            factor: number(trial, "factor"),
        })
        .collect();
    ensure(!trials.is_empty(), || format!("nothing was staged: {why}"))?;
    Ok(trials)
}

/// The wait that the scheduler reported which is nearest in length to the trial's.
fn reported(events: &[Event], trial: &Trial) -> Result<Ended, Failed> {
    let waits = events.iter().filter_map(|event| match event.what {
        What::Wake(ended) => Some(ended),
        _ => None,
    });
    let off = |ended: &Ended| (ended.waited_ns as f64 - trial.wait_ns).abs() as u64;
    let nearest = waits.min_by_key(off).ok_or("no wait was reported")?;
    // it may have been kept from going to sleep for a while
    ensure((off(&nearest) as f64) < trial.wait_ns * 0.2 + 3e7, || {
        format!("no such wait was reported: {trial:?}, {nearest:?}")
    })?;
    Ok(nearest)
}

/// Stages `lock`, and returns each trial with what was reported of it.
pub fn stage(
    client: &mut Client,
    lock: &str,
    critical_ms: &str,
    trials: usize,
) -> Result<Vec<(Trial, Ended)>, Failed> {
    said(client.batch())?;
    let trials = trials_of(inversion(lock, critical_ms, trials).spawn()?)?;
    std::thread::sleep(Duration::from_millis(200));
    let events = said(client.batch())?.events;
    let pairs = trials
        .iter()
        .map(|trial| Ok((*trial, reported(&events, trial)?)));
    pairs.collect()
}

/// Donating: what is reported is what was measured, and the lock has its name.
fn seen(lock: &str, class: &str) -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = client()?;
        for (trial, event) in stage(&mut client, lock, "100", TRIALS)? {
            ensure(trial.awake_ns < trial.wait_ns * AWAKE_MAX, || {
                format!("nothing can be told: {trial:?}")
            })?;
            let off = trial.off(&event) / trial.wait_ns;
            println!(
                "{lock}: factor {:.2}, inverted {:.1} ms by the scheduler, {} from outside, off by {:.1} % of the wait",
                trial.factor,
                event.inverted_ns as f64 / 1e6,
                trial.inverted(),
                off * 100.0
            );
            ensure(off.abs() <= OFF_OF_WAIT_MAX, || {
                format!("{trial:?}, {event:?}")
            })?;
        }
        has_class(&mut client, class)
    })
}

/// Names are found out behind the events. On PREEMPT_RT all sleeping locks are rt_mutexes.
pub fn has_class(client: &mut Client, class: &str) -> Result<(), Failed> {
    let on_rt = class
        .strip_prefix("mutex ")
        .or(class.strip_prefix("rwsem "))
        .filter(|_| !has_mutex_owner())
        .map(|site| format!("rtmutex {site}"));
    let class = on_rt.as_deref().unwrap_or(class);
    let mut classes = Vec::new();
    wait_for(&format!("a lock called {class}"), PATIENCE, || {
        classes = client.view(1000).map_or_else(
            |e| vec![format!("{e:#}")],
            |view| view.classes.into_iter().map(|row| row.class).collect(),
        );
        classes.iter().any(|name| name.starts_with(class))
    })
    .map_err(|_| format!("no {class} in {classes:?}").into())
}

/// Observing: the factor is that of no donation, and what is reported is what was measured.
fn observing_and_switching() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = client()?;
        let mut stats = Stats::open()?;
        said(client.set_donating(false))?;
        let observed = stage(&mut client, "f_pos_lock", "20", 1);
        let donations = stats.delta().map(|metrics| metrics.donations);
        said(client.set_donating(true))?;
        let (trial, event) = observed?[0];
        let off = trial.off(&event) / trial.inverted_ns;
        println!(
            "observing: factor {:.1}, inverted {:.1} ms by the scheduler, {} from outside, off by {:.2} %",
            trial.factor,
            event.inverted_ns as f64 / 1e6,
            trial.inverted(),
            off * 100.0
        );
        ensure(off.abs() <= OFF_MAX, || format!("{trial:?}, {event:?}"))?;
        ensure(trial.factor > 20.0, || {
            format!("{trial:?} without donation")
        })?;
        let donations = donations?;
        ensure(donations == 0, || {
            format!("{donations} donations while observing")
        })?;
        let (trial, _) = stage(&mut client, "f_pos_lock", "20", 1)?[0];
        println!("donating again: factor {:.2}", trial.factor);
        ensure(trial.factor < 5.0, || format!("{trial:?} with donation"))
    })
}

/// What donors gave is what owners got, in the tables and in the events; and both are what the scheduler counted.
fn time_given_is_time_got() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = client()?;
        said(client.batch())?;
        let mut stats = Stats::open()?;
        let before = said(client.view(1000))?.total.lent_ns;
        stats.delta()?;
        trials_of(inversion("f_pos_lock", "100", TRIALS).spawn()?)?;
        let counted_ns = stats.delta()?.donated_ns;
        std::thread::sleep(Duration::from_millis(300));
        let view = said(client.view(1000))?;
        let mut gave = Vec::new();
        loop {
            let batch = said(client.batch())?;
            ensure(batch.lost == 0, || format!("{} events lost", batch.lost))?;
            if batch.events.is_empty() {
                break;
            }
            gave.extend(batch.events.iter().filter_map(|event| match event.what {
                What::Gave(gave) => Some(gave),
                _ => None,
            }));
        }
        let told_ns: u64 = gave.iter().map(|gave| gave.ns).sum();
        let given_ns: u64 = view.tasks.iter().map(|row| row.waited.lent_ns).sum();
        let got_ns: u64 = view.tasks.iter().map(|row| row.owned.lent_ns).sum();
        let between_ns: u64 = view.pairs.iter().map(|row| row.sums.lent_ns).sum();
        println!("counted {counted_ns} ns, told {told_ns}, given {given_ns}, got {got_ns}");
        ensure(given_ns == got_ns && between_ns == got_ns, || {
            format!("given {given_ns}, got {got_ns}, by cgroups {between_ns}")
        })?;
        ensure(given_ns == view.total.lent_ns, || {
            format!("{:?}", view.total)
        })?;
        let off = |ns: u64| ns.abs_diff(counted_ns) as f64 > 5e6 + 0.02 * counted_ns as f64;
        ensure(!off(told_ns) && !off(given_ns - before), || {
            format!("counted {counted_ns}, told {told_ns}, given {given_ns} from {before} on")
        })?;
        // the owners need 100 ms each, with a hog on their CPU: most of that is given
        let mut of_donors: BTreeMap<u32, u64> = BTreeMap::new();
        for gave in &gave {
            *of_donors.entry(gave.donor).or_default() += gave.ns;
        }
        let most = of_donors.into_iter().max_by_key(|(_, ns)| *ns);
        let (donor, ns) = most.ok_or("nobody gave anything")?;
        let row = view.tasks.iter().find(|row| row.task.pid == donor);
        ensure(
            ns > 20_000_000 && row.is_some_and(|row| row.waited.lent_ns == ns),
            || format!("{donor} gave {ns} ns in events, {row:?}"),
        )
    })
}

/// A waiter that waits while its scheduler only observes is helped as soon as that donates.
fn switched_on_in_the_middle_of_a_wait() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut client = client()?;
        said(client.set_donating(false))?;
        let result = helped_late(&mut client);
        said(client.set_donating(true))?;
        let (took, need_ms) = result?;
        println!(
            "the wait ended {took:?} after the switch; its owner still needed {need_ms:.0} ms"
        );
        // without donation it would take 70 times what is needed
        let at_most = Duration::from_secs(1) + Duration::from_secs_f64(need_ms * 2.0 / 1e3);
        ensure(took < at_most, || format!("not within {at_most:?}"))
    })
}

/// From the switch to the end of the wait, and the CPU time that was needed for it in ms.
fn helped_late(client: &mut Client) -> Result<(Duration, f64), Failed> {
    let child = inversion("f_pos_lock", "100", 1).spawn()?;
    let mut waiter = 0;
    wait_for("a wait of two seconds", Duration::from_secs(60), || {
        let view = client.view(100).unwrap_or_default();
        let old = |chain: &&scx_proxy::watch::view::Chain| {
            let link = &chain.links[0];
            link.task.comm == "inversion" && link.waited_ns > 2_000_000_000
        };
        waiter = view
            .chains
            .iter()
            .find(old)
            .map_or(0, |chain| chain.links[0].task.pid);
        waiter != 0
    })?;
    said(client.batch())?;
    said(client.set_donating(true))?;
    let switched = Instant::now();
    wait_for("the wait to end", Duration::from_secs(60), || {
        let woke =
            |event: &Event| matches!(event.what, What::Wake(ended) if ended.about.pid == waiter);
        client
            .batch()
            .is_ok_and(|batch| batch.events.iter().any(woke))
    })?;
    let took = switched.elapsed();
    let trial = trials_of(child)?[0];
    Ok((took, (trial.wait_ns / trial.factor) / 1e6))
}

/// `record` beside a staged inversion, `replay` of it, and the same scraped from `metrics`.
fn recordings_and_metrics() -> Result<(), Failed> {
    sched::with(&[], || {
        let file = "/run/scx_proxy.rec";
        let mut load = Load::default();
        load.start(&[SCX_PROXY, "metrics", "127.0.0.1:9839"])?;
        load.start(&[SCX_PROXY, "record", "--force", "--seconds", "600", file])?;
        wait_for("the recording", PATIENCE, || Path::new(file).exists())?;
        let recorder = Command::new("pgrep")
            .args(["-f", "scx_proxy record"])
            .output()?;
        let recorder = String::from_utf8_lossy(&recorder.stdout).trim().to_owned();
        let mut client = client()?;
        stage(&mut client, "f_pos_lock", "50", 1)?;
        has_class(&mut client, "mutex fdget_pos")?;
        let mut page = String::new();
        wait_for("the class in the metrics", PATIENCE, || {
            page = scrape().unwrap_or_default();
            page.contains(r#"scx_proxy_inversion_seconds_count{class="mutex fdget_pos"}"#)
        })
        .map_err(|_| format!("scraped {page}"))?;
        ensure(page.ends_with("# EOF\n"), || format!("scraped {page}"))?;
        // a second later whatever it keeps back is in the file
        std::thread::sleep(Duration::from_millis(1500));
        crate::machine::run(&["kill", "-INT", &recorder])?;
        wait_for("the recorder to end", PATIENCE, || {
            !Path::new(&format!("/proc/{recorder}/exe")).exists()
        })?;
        let json = replay(&[file, "--json"])?;
        let named = |line: &&str| line.contains(r#""wake""#) && line.contains("mutex fdget_pos");
        ensure(json.lines().any(|line| named(&line)), || {
            let tail: Vec<_> = json.lines().rev().take(5).collect();
            format!("no named wait in {tail:#?}")
        })?;
        let summary = replay(&[file, "--summary"])?;
        ensure(summary.contains("mutex fdget_pos"), || summary.clone())?;
        replay(&[file, "--perfetto", "/run/scx_proxy.pftrace"])?;
        let mut trace = Vec::new();
        File::open("/run/scx_proxy.pftrace")?.read_to_end(&mut trace)?;
        let name = b"mutex fdget_pos";
        let has_name = trace.windows(name.len()).any(|bytes| bytes == name);
        ensure(has_name, || {
            format!("a trace of {} bytes without the lock", trace.len())
        })
    })
}

/// A report beside a staged inversion: complete, and its recording names the kernel's lock, but no task.
fn bugreport() -> Result<(), Failed> {
    let report = "/run/bugreport.tar.gz";
    let log = "/run/bugreport.log";
    let part = |name: &str| -> Result<Vec<u8>, Failed> {
        let path = format!("scx_proxy-bugreport/{name}");
        let out = Command::new("tar").args(["xzOf", report, &path]).output()?;
        ensure(out.status.success(), || {
            format!("{name} is not in the report")
        })?;
        Ok(out.stdout)
    };
    let text = |name| Ok::<_, Failed>(String::from_utf8_lossy(&part(name)?).into_owned());
    sched::with(&[], || {
        let mut client = client()?;
        for names in [false, true] {
            let mut command = Command::new(SCX_PROXY);
            command.args(["bugreport", report, "--force", "--seconds", "600"]);
            command.args(names.then_some("--names"));
            let mut collects = command.stdout(File::create(log)?).spawn()?;
            // the last part before the recording
            wait_for("the counters", PATIENCE, || {
                read(log).contains("counters.json")
            })?;
            stage(&mut client, "f_pos_lock", "50", 1)?;
            has_class(&mut client, "mutex fdget_pos")?;
            // a second later whatever it keeps back is in the file; Ctrl-C ends the recording only
            std::thread::sleep(Duration::from_millis(1500));
            crate::machine::run(&["kill", "-INT", &collects.id().to_string()])?;
            let status = collects.wait()?;
            ensure(status.success(), || format!("bugreport: {status}"))?;
            let (flags, counters) = (text("flags.txt")?, text("counters.json")?);
            ensure(
                flags.contains("scx_proxy --") && counters.contains("dispatch_queue"),
                || format!("{flags}{counters}"),
            )?;
            let recording = "/run/bugreport.rec";
            std::fs::write(recording, part("recording")?)?;
            let json = replay(&[recording, "--json"])?;
            ensure(json.contains("fdget_pos"), || {
                "a recording without the lock".into()
            })?;
            ensure(json.contains("inversion") == names, || {
                let line = json.lines().find(|line| line.contains("inversion"));
                format!("with --names {names}: {line:?}")
            })?;
        }
        Ok(())
    })
}

pub fn replay(args: &[&str]) -> Result<String, Failed> {
    let out = Command::new(SCX_PROXY).arg("replay").args(args).output()?;
    let why = String::from_utf8_lossy(&out.stderr).into_owned();
    ensure(out.status.success(), || format!("replay {args:?}: {why}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

pub fn scrape() -> std::io::Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9839")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer
        .split_once("\r\n\r\n")
        .map_or_else(String::new, |(_, body)| body.to_owned()))
}

/// Two threads, two mutexes of the C library, each asks for the other's.
const DEADLOCK: &str = r#"
import ctypes, threading, time
libc = ctypes.CDLL("libc.so.6")
a, b = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
def take(first, second):
    libc.pthread_mutex_lock(first)
    time.sleep(0.5)
    libc.pthread_mutex_lock(second)
for pair in (a, b), (b, a):
    threading.Thread(target=take, args=pair, daemon=True).start()
time.sleep(600)
"#;

fn a_deadlock_is_reported_once() -> Result<(), Failed> {
    sched::with(&[], || {
        let mut stats = Stats::open()?;
        let mut load = Load::default();
        let before = sched::log().matches("deadlock: ").count();
        load.start(&["/usr/bin/python3", "-c", DEADLOCK])?;
        let mut deadlocks = 0;
        wait_for("a deadlock to be reported", PATIENCE, || {
            deadlocks += stats.delta().map_or(0, |metrics| metrics.deadlocks);
            deadlocks > 0
        })?;
        // it goes on, and nothing more is said
        std::thread::sleep(Duration::from_secs(4));
        deadlocks += stats.delta()?.deadlocks;
        let log = sched::log();
        let report: Vec<_> = log
            .lines()
            .skip_while(|line| !line.contains("deadlock: "))
            .collect();
        ensure(deadlocks == 1, || format!("{deadlocks} deadlocks"))?;
        ensure(log.matches("deadlock: ").count() == before + 1, || {
            log.clone()
        })?;
        let text = report.join("\n");
        println!("{text}");
        ensure(text.matches("python3").count() >= 4, || text.clone())?;
        ensure(text.matches("pthread").count() >= 2, || text.clone())?;
        ensure(text.matches("futex").count() >= 2, || {
            format!("no kernel stacks in {text}")
        })?;
        drop(load);
        wait_for("the waits to be over", PATIENCE, || {
            stats
                .delta()
                .is_ok_and(|metrics| metrics.donors_waiting_now == 0)
        })
    })
}

/// Threads that take each other's mutex on one CPU, as fast as they can: `pingpong`.
pub fn producers(cpus: &[usize]) -> Result<Load, Failed> {
    let own = std::env::current_exe()?;
    let own = own.to_str().ok_or("a path of this program")?;
    let mut load = Load::default();
    for cpu in cpus {
        let variable = format!("{}={cpu}", pingpong::CPU);
        load.start(&["env", &variable, own])?;
    }
    Ok(load)
}

/// What one CPU, and then two, can produce: nothing of it may be lost, but for a stall of the host.
fn events_are_not_lost() -> Result<(), Failed> {
    const MEASURED: Duration = Duration::from_secs(5);
    // one that prints no events, which takes the agent longer than all the rest
    sched::with(sched::TRACEPOINT, || {
        for cpus in [&[0][..], &[0, 2]] {
            let load = producers(cpus)?;
            let _follower = follower()?;
            std::thread::sleep(Duration::from_secs(1));
            let mut stats = Stats::open()?;
            let start = Instant::now();
            std::thread::sleep(MEASURED);
            let metrics = stats.delta()?;
            let secs = start.elapsed().as_secs_f64();
            drop(load);
            println!(
                "producers on {cpus:?}: {:.0} events/s read, {:.0} lost",
                metrics.agent_events as f64 / secs,
                metrics.events_lost as f64 / secs
            );
            ensure(metrics.agent_events as f64 / secs > 1_000.0, || {
                "too few events to tell".into()
            })?;
            ensure(metrics.events_lost * 50 < metrics.agent_events, || {
                format!("{} events were lost", metrics.events_lost)
            })?;
        }
        Ok(())
    })
}
