// SPDX-License-Identifier: GPL-2.0-only
//! Requests to the sockets of the scheduler and of its watcher. The servers are the real ones; behind them is
//! what answers. The first byte says which of the two.
//!
//! Rule: each line has one answer, which is JSON, and the server goes on.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use scx_stats::prelude::StatsServer;

use crate::events::Batch;
use crate::events::stream::Followers;
use crate::stats::{self, Answer, GroupRow};
use crate::watch::Watch;
use crate::watcher::requests::{self, Request};
use crate::watcher::server::{self, Clients};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Servers {
    scheduler: PathBuf,
    watcher: PathBuf,
}

/// A socket for this process; it is gone with the folder of temporary files.
pub fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("scx_proxy-fuzz-{}.{name}", std::process::id()))
}

static SERVERS: LazyLock<Servers> = LazyLock::new(|| Servers {
    scheduler: scheduler(),
    watcher: watcher(),
});

fn scheduler() -> PathBuf {
    let path = socket("stats");
    let server = StatsServer::new(stats::server_data(None, std::thread::current()));
    let server = server.set_path(&path).launch();
    let server = server.unwrap_or_else(|error| panic!("no socket: {error:#}"));
    std::thread::spawn(move || {
        let (answers, requests) = server.channels();
        for request in requests {
            let answer = match request {
                stats::Request::Metrics => Answer::Metrics(Box::default()),
                stats::Request::Donate(on) => Answer::Donating(on),
                stats::Request::Groups => Answer::Groups(vec![GroupRow::default()]),
            };
            if answers.send(answer).is_err() {
                return;
            }
        }
    });
    path
}

fn watcher() -> PathBuf {
    let path = socket("watch");
    let (requests, incoming) = requests::channel();
    let data = server::server_data(requests, Arc::new(Clients::default()));
    let server = StatsServer::new(data).set_path(&path).launch();
    let server = server.unwrap_or_else(|error| panic!("no socket: {error:#}"));
    std::thread::spawn(move || {
        let _server = server;
        let (watch, mut followers) = (Watch::new(0), Followers::default());
        for request in incoming {
            match request {
                Request::View(rows, reply) => drop(reply.send(watch.view(1, rows))),
                Request::History(pid, reply) => drop(reply.send(watch.history(pid))),
                Request::Follow(outlet, reply) => {
                    let _ = reply.send(followers.add(outlet, Batch::default()));
                }
            }
        }
    });
    path
}

pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = super::chosen(input) else {
        return;
    };
    let path = match choice & 1 {
        0 => &SERVERS.scheduler,
        _ => &SERVERS.watcher,
    };
    let answers = answers(path, bytes).unwrap_or_else(|error| panic!("no answer: {error}"));
    for line in answers.lines() {
        let answer: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        assert!(answer["errno"].is_number(), "no answer: {line}");
    }
    // a line that is no UTF-8 ends the connection
    let questions = bytes.split_inclusive(|byte| *byte == b'\n');
    let questions = questions.take_while(|line| std::str::from_utf8(line).is_ok());
    assert_eq!(answers.lines().count(), questions.count(), "{answers}");
}

fn answers(path: &Path, bytes: &[u8]) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut sender = stream.try_clone()?;
    // neither side waits for the other to read
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // it ends the connection at what is no UTF-8
            let _ = sender.write_all(bytes);
            let _ = sender.shutdown(Shutdown::Write);
        });
        let mut all = String::new();
        match stream.read_to_string(&mut all) {
            // likewise, with some of it unread
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error),
            _ => Ok(all),
        }
    })
}
