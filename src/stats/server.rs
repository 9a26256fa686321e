// SPDX-License-Identifier: GPL-2.0-only
//! The targets of the scheduler's socket. Counters, cgroups and the switch are asked of its main loop, by a
//! channel; `watcher` has the watcher started, and says where that listens. `crate::client::Client` is the
//! other end.

use std::collections::BTreeMap;
use std::thread::Thread;

use anyhow::{Context, Result, bail};
use crossbeam::channel::{Receiver, Sender};
use scx_stats::prelude::*;
use serde_json::{Value, json};

use super::{GroupRow, Metrics};
use crate::watcher::Handle;

/// What is asked of the main loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// All counters.
    Metrics,
    /// Donate from now on, or only observe.
    Donate(bool),
    /// All cgroups.
    Groups,
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Totals since the scheduler was loaded.
    Metrics(Box<Metrics>),
    /// Whether it donates now.
    Donating(bool),
    /// All that there are now.
    Groups(Vec<GroupRow>),
}

type Args = BTreeMap<String, String>;
type Channels<'a> = (&'a Sender<Request>, &'a Receiver<Answer>);

/// The thread of the main loop, which sleeps while there are no requests.
type MainLoop = Thread;

fn ask(question: Request, main_loop: &MainLoop, (ask, answer): Channels) -> Result<Answer> {
    ask.send(question)?;
    main_loop.unpark();
    Ok(answer.recv()?)
}
type Reader = Box<dyn StatsReader<Request, Answer>>;

fn totals(main_loop: &MainLoop, channels: Channels) -> Result<Metrics> {
    match ask(Request::Metrics, main_loop, channels)? {
        Answer::Metrics(metrics) => Ok(*metrics),
        _ => bail!("the scheduler answered another question"),
    }
}

fn groups(main_loop: &MainLoop, channels: Channels) -> Result<Value> {
    match ask(Request::Groups, main_loop, channels)? {
        // as text, like a view
        Answer::Groups(groups) => Ok(Value::String(serde_json::to_string(&groups)?)),
        _ => bail!("the scheduler answered another question"),
    }
}

/// Each reader gets what was counted since its own last read.
fn counters(main_loop: MainLoop) -> StatsOps<Request, Answer> {
    let open: Box<dyn StatsOpener<Request, Answer>> = Box::new(move |channels| {
        let mut last = totals(&main_loop, channels)?;
        let main_loop = main_loop.clone();
        let read: Reader = Box::new(move |_args, channels| {
            let now = totals(&main_loop, channels)?;
            let delta = now.since(&last);
            last = now;
            delta.to_json()
        });
        Ok(read)
    });
    StatsOps { open, close: None }
}

fn switch(args: &Args, main_loop: &MainLoop, channels: Channels) -> Result<Value> {
    let on = match args.get("donate").map(String::as_str) {
        Some("on") => true,
        Some("off") => false,
        _ => bail!("control wants donate=on or donate=off"),
    };
    match ask(Request::Donate(on), main_loop, channels)? {
        Answer::Donating(donating) => Ok(Value::Bool(donating)),
        _ => bail!("the scheduler answered another question"),
    }
}

/// A target whose readers share nothing.
fn plain<F>(read: F) -> StatsOps<Request, Answer>
where
    F: Fn(&Args, Channels) -> Result<Value> + Clone + Send + 'static,
{
    let open: Box<dyn StatsOpener<Request, Answer>> = Box::new(move |_channels| {
        let read = read.clone();
        let read: Reader = Box::new(move |args, channels| read(args, channels));
        Ok(read)
    });
    StatsOps { open, close: None }
}

/// Why a scheduler without an agent has no events: not now, and not later.
pub const NO_AGENT: &str =
    "this scheduler runs without an agent (--no-agent), which is what watches";

/// All targets; `watcher` is `None` without an agent. `main_loop` is woken by [`Thread::unpark`] when it is
/// asked something.
pub fn server_data(watcher: Option<Handle>, main_loop: Thread) -> StatsServerData<Request, Answer> {
    let (switched, listing) = (main_loop.clone(), main_loop.clone());
    StatsServerData::new()
        .add_meta(Metrics::meta())
        .add_ops("top", counters(main_loop))
        .add_ops(
            "control",
            plain(move |args, channels| switch(args, &switched, channels)),
        )
        .add_ops(
            "cgroups",
            plain(move |_args, channels| groups(&listing, channels)),
        )
        .add_ops(
            "watcher",
            plain(move |_args, _channels| {
                let watcher = watcher.as_ref().context(NO_AGENT)?;
                Ok(json!({ "socket": watcher.want() }))
            }),
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use scx_stats::StatsClient;

    /// A main loop that counts, and switches.
    fn serve(server: &StatsServer<Request, Answer>) {
        let (answers, requests) = server.channels();
        std::thread::spawn(move || {
            for request in requests {
                let answer = match request {
                    Request::Metrics => Answer::Metrics(Box::default()),
                    Request::Donate(on) => Answer::Donating(on),
                    Request::Groups => Answer::Groups(vec![GroupRow::default()]),
                };
                if answers.send(answer).is_err() {
                    return;
                }
            }
        });
    }

    fn ask(client: &mut StatsClient, args: &[(&str, &str)]) -> Result<Value> {
        let args = args
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        client.request("stats", args.collect())
    }

    #[test]
    fn what_cannot_be_answered_is_said_and_the_connection_stays() {
        let socket = std::env::temp_dir().join(format!("scx_proxy-{}.stats", std::process::id()));
        let server = StatsServer::new(server_data(None, std::thread::current())).set_path(&socket);
        let server = server.launch().expect("a socket");
        serve(&server);
        let client = StatsClient::new().set_path(&socket);
        let mut client = client.connect(Some(5000)).expect("a connection");
        for (args, why) in [
            (&[("target", "control"), ("donate", "x")][..], "donate=on"),
            (&[("target", "control")], "donate=on"),
            (&[("target", "watcher")], "--no-agent"),
        ] {
            let error = ask(&mut client, args).expect_err("refused");
            assert!(format!("{error:?}").contains(why), "{args:?}: {error:?}");
        }
        let on = ask(&mut client, &[("target", "control"), ("donate", "on")]);
        assert_eq!(on.expect("switched"), Value::Bool(true));
        let groups = ask(&mut client, &[("target", "cgroups")]).expect("cgroups");
        assert!(
            groups
                .as_str()
                .is_some_and(|text| text.contains("throttled_ns"))
        );
        let _ = std::fs::remove_file(&socket);
    }
}
