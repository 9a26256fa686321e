// SPDX-License-Identifier: GPL-2.0-only
//! `record` and `replay`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use scx_proxy::abi;
use scx_proxy::cli::parse_size;
use scx_proxy::events::TaskName;
use scx_proxy::events::{Batch, Event, Names};
use scx_proxy::record::format::{HEADER_BYTES, Header};
use scx_proxy::record::header;
use scx_proxy::record::reader::{Damage, Recording, Span};
use scx_proxy::record::writer::Recorder;
use serde_json::Value;

use super::fake::{self, Fake, Folder, Running, event, record, scx_proxy, story, typed, wait};

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/recordings/version-1.rec"
);

pub fn read(path: &Path, span: Span) -> (Vec<Batch>, Damage) {
    let recording = Recording::open(path).expect("opens");
    let mut batches = recording.batches(span);
    let all = batches.by_ref().collect::<Result<_, _>>().expect("reads");
    (all, batches.damage())
}

pub fn events(batches: &[Batch]) -> Vec<Event> {
    let events = batches.iter().flat_map(|batch| &batch.events);
    events.copied().collect()
}

/// Writes batches without a scheduler, each into chunks of its own.
pub fn write(path: &Path, size_max: u64, batches: &[Batch]) {
    let file = fs::File::create(path).expect("a file");
    let mut recorder = Recorder::new(file, &header(size_max)).expect("a header");
    for batch in batches {
        recorder.add(batch).expect("added");
        recorder.flush().expect("flushed");
    }
}

fn json(path: &Path, more: &[&str]) -> Vec<Value> {
    let mut args = vec!["replay", path.to_str().expect("UTF-8"), "--json"];
    args.extend(more);
    let out = scx_proxy(&args);
    assert!(out.status.success(), "{out:?}");
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn what_is_recorded_is_replayed_with_names() {
    let folder = Folder::new();
    let began_ns = header(0).began_ns;
    let late = Batch {
        events: typed(vec![event(
            abi::proxy_event_kind_EVENT_PARK,
            began_ns + 50_000_000,
            101,
            103,
        )]),
        lost: 3,
        donating: false,
        ..Batch::default()
    };
    let fake = Fake::new(&folder, vec![story(began_ns), late]);
    let path = record(&folder, &fake, "r", &[]);
    let (batches, damage) = read(&path, Span::default());
    assert_eq!(damage, Damage::default());
    assert_eq!(events(&batches)[..10], story(began_ns).events[..]);
    assert_eq!(batches.iter().map(|batch| batch.lost).sum::<u64>(), 3);
    assert!(batches[0].snapshot && !batches.last().expect("some").donating);

    let lines = json(&path, &[]);
    let block = lines
        .iter()
        .find(|line| line["kind"] == "block")
        .expect("a block");
    assert_eq!(block["waiter"]["comm"], "firefox");
    assert_eq!(block["owner"]["comm"], "tar");
    assert_eq!(block["lock"]["class"], "mutex fdget_pos");
    assert_eq!(block["cgroup"], "/user.slice");
    assert!(
        lines
            .iter()
            .any(|line| line["kind"] == "lost" && line["number"] == 3)
    );

    let out = scx_proxy(&["replay", path.to_str().expect("UTF-8"), "--text"]);
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    assert!(
        text.contains("donate donor=101 owner=102 cpu=1 locks=1"),
        "{text}"
    );

    let out = scx_proxy(&["replay", path.to_str().expect("UTF-8")]);
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    for row in [
        "3 waits, 1 in progress; 3 events lost",
        "mutex fdget_pos",
        "firefox 101",
        "/user.slice        /batch.slice",
    ] {
        assert!(text.contains(row), "no {row:?} in\n{text}");
    }
}

/// A scheduler that goes, and another one on the same socket.
#[test]
fn a_recording_goes_on_over_a_restart_of_the_scheduler() {
    let folder = Folder::new();
    let began_ns = header(0).began_ns;
    let fake = Fake::new(&folder, vec![story(began_ns)]);
    let path = folder.text("r");
    let running = Running::new(&["record", &path, "--socket", fake.socket()]);
    fake.wait_taken();
    std::thread::sleep(Duration::from_millis(300));
    drop(fake);
    std::thread::sleep(Duration::from_millis(500));
    // of the waits before, the new one knows none
    let after = Batch {
        events: typed(vec![
            wait(
                abi::proxy_event_kind_EVENT_SNAPSHOT,
                began_ns,
                104,
                102,
                fake::RWSEM,
            ),
            event(
                abi::proxy_event_kind_EVENT_PARK,
                header(0).began_ns,
                101,
                103,
            ),
        ]),
        snapshot: true,
        donating: true,
        ..Batch::default()
    };
    let fake = Fake::new(&folder, vec![after]);
    fake.wait_taken();
    std::thread::sleep(Duration::from_millis(300));
    let out = running.terminate();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(
        said.contains("waiting up to 60 s") && said.contains("is back after"),
        "{said}"
    );

    let path = Path::new(&path);
    let lines = json(path, &[]);
    let kinds: Vec<_> = lines[10..]
        .iter()
        .map(|line| line["kind"].as_str())
        .collect();
    assert_eq!(kinds, [Some("snapshot"), Some("restart"), Some("park")]);
    let gone_ns = lines[11]["gone_ns"].as_u64().expect("a time");
    assert!(
        (200_000_000..20_000_000_000).contains(&gone_ns),
        "{gone_ns}"
    );
    let replay = |form: &[&str]| {
        let out = scx_proxy(&[&["replay", path.to_str().expect("UTF-8")], form].concat());
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    assert!(replay(&["--text"]).contains(&format!(" restart gone_ns={gone_ns}\n")));
    let summary = replay(&[]);
    for said in ["over 1 restart of the scheduler", "3 waits, 1 in progress"] {
        assert!(summary.contains(said), "no {said:?} in\n{summary}");
    }
    let trace = folder.text("trace");
    replay(&["--perfetto", &trace]);
    let trace = fs::read(&trace).expect("a trace");
    let mark = b"scheduler loaded again";
    assert!(trace.windows(mark.len()).any(|bytes| bytes == mark));
}

#[test]
fn a_scheduler_that_does_not_come_back_is_not_waited_for_for_ever() {
    let folder = Folder::new();
    let fake = Fake::new(&folder, vec![story(1)]);
    let path = folder.text("r");
    let running = Running::new(&["record", &path, "--socket", fake.socket(), "--wait", "0.5"]);
    fake.wait_taken();
    std::thread::sleep(Duration::from_millis(300));
    drop(fake);
    let out = running.end();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains("has not come back ("),
        "{said}"
    );
    assert_eq!(events(&read(Path::new(&path), Span::default()).0).len(), 10);
}

#[test]
fn recording_ends_with_the_scheduler_and_after_the_time_given() {
    let folder = Folder::new();
    let fake = Fake::new(&folder, vec![story(1)]);
    let began = Instant::now();
    let path = folder.text("timed");
    let record = || {
        let socket = ["--socket", fake.socket()];
        scx_proxy(&[&["record", &path], &socket[..], &["--seconds", "0.4"]].concat())
    };
    let out = record();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(events(&read(Path::new(&path), Span::default()).0).len(), 10);

    // not overwritten, unless that is asked for
    let out = record();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains("(--force overwrites it)"), "{said}");
    let args = [
        "record",
        &path,
        "--socket",
        fake.socket(),
        "--seconds",
        "0.2",
        "--force",
    ];
    assert!(scx_proxy(&args).status.success());
    assert!(read(Path::new(&path), Span::default()).0.is_empty());

    // its socket answers with an end of file: what a scheduler does that ends
    let gone = folder.path("gone");
    let listener = std::os::unix::net::UnixListener::bind(&gone).expect("a socket");
    let own = serde_json::json!({ "socket": gone });
    let answers = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let batch = scx_proxy::watch::wire::to_json(&story(1)).expect("JSON");
        // first where its watcher is, then what that says
        let connections = [own, batch].map(|answer| {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            BufReader::new(stream.try_clone().expect("a stream"))
                .read_line(&mut line)
                .expect("a request");
            let response = serde_json::json!({"errno": 0, "args": {"resp": answer}});
            writeln!(stream, "{response}").expect("an answer");
            stream
        });
        drop(connections);
    });
    let (path, gone) = (
        folder.text("left"),
        gone.to_str().expect("UTF-8").to_owned(),
    );
    let out = scx_proxy(&["record", &path, "--socket", &gone, "--wait", "0"]);
    answers.join().expect("answered");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && said.contains("the scheduler has gone"),
        "{out:?}"
    );
    assert_eq!(events(&read(Path::new(&path), Span::default()).0).len(), 10);
}

#[test]
fn what_cannot_be_recorded_is_said() {
    let folder = Folder::new();
    let path = folder.text("r");
    let out = scx_proxy(&["record", &path, "--socket", &folder.text("none")]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(said.contains("is scx_proxy running"), "{said}");
    assert!(!Path::new(&path).exists(), "nothing was recorded");

    let fake = Fake::new(&folder, Vec::new());
    let out = scx_proxy(&["record", "/dev/full", "--force", "--socket", fake.socket()]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.contains("/dev/full") && said.contains("No space left"),
        "{said}"
    );
}

/// Waits that begin and end in turn, `nr` events from `from` on; one goes on all the time.
fn turns(from: u64, nr: u64) -> Batch {
    let event = |nr: u64| {
        let kind = match nr % 2 {
            0 => abi::proxy_event_kind_EVENT_BLOCK,
            _ => abi::proxy_event_kind_EVENT_WAKE,
        };
        Event::from(wait(kind, 1000 + nr, 7, 102, fake::MUTEX))
    };
    Batch {
        events: (from..from + nr).map(event).collect(),
        names: if from == 0 {
            fake::names()
        } else {
            Default::default()
        },
        donating: true,
        ..Batch::default()
    }
}

#[test]
fn a_ring_keeps_the_newest_within_its_size() {
    let folder = Folder::new();
    let path = folder.path("ring");
    let max = 300_000;
    let mut batches = vec![Batch {
        events: typed(vec![wait(
            abi::proxy_event_kind_EVENT_BLOCK,
            1,
            101,
            102,
            fake::MUTEX,
        )]),
        ..Batch::default()
    }];
    batches.extend((0..100).map(|nr| turns(nr * 100, 100)));
    write(&path, max, &batches);
    let len = fs::metadata(&path).expect("a file").len();
    assert!(len <= max && len > max - 20_000, "{len}");
    let (batches, damage) = read(&path, Span::default());
    assert_eq!(
        damage,
        Damage::default(),
        "what was overwritten is no damage"
    );
    let all = events(&batches);
    assert_eq!(all.last().expect("some").time_ns, 1000 + 9999);
    assert!(all.len() > 2000 && all.len() < 4000, "{}", all.len());
    // it begins with the wait that went on from the first event on, and has names
    assert!(batches[0].snapshot);
    assert!(all[0].is_snapshot() && all[0].about().pid == 101);
    let names = &batches[0].names;
    assert!(
        names
            .tasks
            .iter()
            .any(|(pid, name)| *pid == 101 && name.comm == "firefox")
    );
    assert_eq!(names.sites.len(), 1);
    let happened = all.iter().filter(|e| !e.is_snapshot());
    let times: Vec<u64> = happened.map(|e| e.time_ns).collect();
    assert!(
        times.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "in order, none missing"
    );
}

#[test]
fn a_cut_file_and_a_damaged_chunk_cost_no_more_than_themselves() {
    let folder = Folder::new();
    let path = folder.path("r");
    let batches: Vec<Batch> = (0..10).map(|nr| turns(nr * 100, 100)).collect();
    write(&path, 0, &batches);
    let whole = fs::read(&path).expect("a file");

    fs::write(&path, &whole[..whole.len() - 5000]).expect("cut");
    let (batches, damage) = read(&path, Span::default());
    assert_eq!(events(&batches).len(), 900);
    assert_eq!(damage.parts, 1);

    // a byte of an event; a byte of a chunk's header
    for at in [whole.len() / 2, HEADER_BYTES + 20] {
        fs::write(&path, &whole).expect("whole");
        let file = fs::File::options().write(true).open(&path).expect("a file");
        file.write_all_at(&[!whole[at]], at as u64)
            .expect("damaged");
        let (batches, damage) = read(&path, Span::default());
        assert_eq!(events(&batches).len(), 900, "{at}");
        assert_eq!(damage.parts, 1, "{at}");
        let missing = if at > 1000 { 100 } else { 0 };
        assert_eq!(damage.events, missing, "{at}");
        let out = scx_proxy(&["replay", path.to_str().expect("UTF-8"), "--text"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success() && said.contains("1 damaged"), "{said}");
    }
    // what is missing was lost; the batch behind it says which waits go on
    fs::write(&path, &whole).expect("whole");
    let file = fs::File::options().write(true).open(&path).expect("a file");
    file.write_all_at(b"????", whole.len() as u64 / 2)
        .expect("damaged");
    let (batches, _) = read(&path, Span::default());
    let after: Vec<&Batch> = batches.iter().filter(|batch| batch.lost > 0).collect();
    assert_eq!(
        (after.len(), after[0].lost, after[0].snapshot),
        (1, 100, true)
    );
}

#[test]
fn what_is_no_recording_of_ours_is_refused() {
    let folder = Folder::new();
    let path = folder.path("r");
    let mut bytes = header(0).to_bytes();
    bytes[12..16].copy_from_slice(&7_u32.to_ne_bytes());
    for (bytes, says) in [
        (&bytes[..], "its format is version 7"),
        (b"", "no recording"),
        (b"#!/bin/sh", "no recording"),
    ] {
        fs::write(&path, bytes).expect("a file");
        let out = scx_proxy(&["replay", path.to_str().expect("UTF-8"), "--json"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert!(
            said.contains(says) && said.contains("cannot read"),
            "{said}"
        );
    }
}

/// This file was written by the first version of the format, and never will be again.
#[test]
fn the_first_version_stays_readable() {
    let (batches, damage) = read(Path::new(FIXTURE), Span::default());
    assert_eq!(damage, Damage::default());
    assert_eq!(events(&batches), story(1_000_000_000).events);
    let lines = json(Path::new(FIXTURE), &[]);
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0]["lock"]["name"], "uts_sem");
}

#[test]
#[ignore = "writes the fixture: for a new version of the format, under another name"]
fn write_fixture() {
    let file = fs::File::create(FIXTURE).expect("a file");
    let header = Header {
        began_wall_ns: 1_800_000_000_000_000_000,
        began_ns: 1_000_000_000,
        began_boot_ns: 2_000_000_000,
        release: "7.3.4+deb13-cloud-amd64".into(),
        made_by: "0.1.0".into(),
        ..header(0)
    };
    let mut recorder = Recorder::new(file, &header).expect("a header");
    recorder.add(&story(1_000_000_000)).expect("added");
    recorder.flush().expect("flushed");
}

#[test]
fn a_span_begins_with_the_waits_that_go_on() {
    let path = Path::new(FIXTURE);
    let lines = json(path, &["--from", "0.011", "--to", "0.0145"]);
    let kinds: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["snapshot", "snapshot", "donate", "migrate", "park"]);
    assert!(json(path, &["--from", "9"]).is_empty());
}

#[test]
fn replay_ends_quietly_when_nobody_reads() {
    for form in ["--json", "--text", "--summary"] {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let out = Command::new(env!("CARGO_BIN_EXE_scx_proxy"))
            .args(["replay", FIXTURE, form])
            .stdout(writer)
            .output()
            .expect("runs");
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{form}: {out:?}"
        );
    }
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("64M", 64 << 20),
        ("1G", 1 << 30),
        ("8388608", 8 << 20),
        ("8mib", 8 << 20),
    ] {
        assert_eq!(parse_size(text).expect(text), bytes);
    }
    for text in ["", "M", "1M", "64X", "-1G", "99999999999999999999G", "2T"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
}

/// The program may have 96 MiB of data: were more of this in memory, it would end there. Each event is
/// of another task and lock, named.
#[test]
fn a_recording_larger_than_memory_is_replayed() {
    let folder = Folder::new();
    let path = folder.path("r");
    let file = fs::File::create(&path).expect("a file");
    let mut recorder = Recorder::new(file, &header(0)).expect("a header");
    for nr in 0..500_u32 {
        let pids = nr * 1000 + 1..nr * 1000 + 1001;
        let events = pids.clone().flat_map(|pid| {
            let lock = u64::from(pid) << 12;
            let time_ns = 10 + u64::from(pid);
            let [block, wake] = [
                abi::proxy_event_kind_EVENT_BLOCK,
                abi::proxy_event_kind_EVENT_WAKE,
            ]
            .map(|kind| wait(kind, time_ns, pid, pid + 1, lock));
            let donate = event(abi::proxy_event_kind_EVENT_DONATE, time_ns, pid, pid + 1);
            typed(vec![block, donate, wake])
        });
        let name = |pid: u32| {
            let comm = format!("task-{pid}");
            (pid, TaskName { tgid: pid, comm })
        };
        let names = Names {
            tasks: pids.clone().map(name).collect(),
            ..Names::default()
        };
        let batch = Batch {
            events: events.collect(),
            names,
            ..Batch::default()
        };
        recorder.add(&batch).expect("added");
    }
    recorder.flush().expect("flushed");
    assert!(recorder.progress().bytes > 128 << 20);
    let path = path.to_str().expect("UTF-8");
    let trace = folder.text("trace");
    for form in [&["--json"][..], &["--summary"], &["--perfetto", &trace]] {
        let out = Command::new("prlimit")
            .args(["--data=100663296", env!("CARGO_BIN_EXE_scx_proxy")])
            .args(["replay", path])
            .args(form)
            .stdout(std::process::Stdio::null())
            .output()
            .expect("runs");
        assert!(
            out.status.success() && out.stderr.is_empty(),
            "{form:?}: {out:?}"
        );
    }
}
