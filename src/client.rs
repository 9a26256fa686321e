// SPDX-License-Identifier: GPL-2.0-only
//! A client's end of two stats sockets, the scheduler's and its watcher's. Every consumer comes this way:
//! `top`, `record`, `--metrics`.
//!
//! Targets of scx_stats' request `stats`. At the scheduler: none for [`Metrics`], `cgroups`, `control` to
//! switch donation, `watcher` to have the watcher started. At the watcher, which is connected to when it
//! is first needed: `watch` for a [`View`], `history` for the events of a task, `events` for a [`Batch`].

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use scx_stats::StatsClient;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::{BESIDE, SOCKET};
use crate::events::Batch;
use crate::stats::{GroupRow, Metrics};
use crate::watch::view::HistoryLine;
use crate::watch::{View, wire};

/// Longest time that one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the watcher may take to start, and how often it is looked for meanwhile.
const STARTS_WITHIN: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_millis(50);

/// A connection to a running scheduler, and to its watcher once that was needed.
pub struct Client {
    scheduler: StatsClient,
    watcher: Option<StatsClient>,
    beside: bool,
}

/// Answer of the target `watcher`.
#[derive(Deserialize)]
struct Watcher {
    /// `None` while it is being started.
    socket: Option<PathBuf>,
}

fn connect(socket: &Path) -> Result<StatsClient> {
    let timeout_ms = u64::try_from(TIMEOUT.as_millis())?;
    StatsClient::new()
        .set_path(socket)
        .connect(Some(timeout_ms))
}

fn ask<T: DeserializeOwned>(
    client: &mut StatsClient,
    target: &str,
    args: &[(&str, String)],
) -> Result<T> {
    let mut all = vec![("target".to_owned(), target.to_owned())];
    all.extend(
        args.iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone())),
    );
    match client.request("stats", all)? {
        // large answers come as text
        Value::String(text) => Ok(serde_json::from_str(&text)?),
        value => Ok(serde_json::from_value(value)?),
    }
}

impl Client {
    /// Connects to the scheduler that listens on `socket`; if none does at the usual place, to what observes
    /// beside one.
    ///
    /// # Errors
    /// No process listens there, or not to us.
    pub fn connect(socket: &Path) -> Result<Self> {
        let mut beside = socket == Path::new(BESIDE);
        let or_beside = |error| match socket == Path::new(SOCKET) {
            true => {
                let found = connect(Path::new(BESIDE)).map_err(|_| error);
                beside = found.is_ok();
                found
            }
            false => Err(error),
        };
        let scheduler = connect(socket).or_else(or_beside).with_context(|| {
            format!(
                "cannot connect to a scheduler at {}: is scx_proxy running, and are you root?",
                socket.display()
            )
        })?;
        Ok(Self {
            scheduler,
            watcher: None,
            beside,
        })
    }

    /// Whether what answers observes beside another scheduler, and is none itself.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        self.beside
    }

    /// Connects to the scheduler that listens on `socket`, and to no other.
    ///
    /// # Errors
    /// As above.
    pub fn connect_again(socket: &Path) -> Result<Self> {
        Ok(Self {
            scheduler: connect(socket)?,
            watcher: None,
            beside: socket == Path::new(BESIDE),
        })
    }

    /// The watcher; it is started if there is none.
    fn watcher(&mut self) -> Result<&mut StatsClient> {
        if self.watcher.is_none() {
            self.watcher = Some(self.start_watcher()?);
        }
        self.watcher.as_mut().context("no watcher")
    }

    fn start_watcher(&mut self) -> Result<StatsClient> {
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            let watcher: Watcher = ask(&mut self.scheduler, "watcher", &[])?;
            // it may have ended just now
            if let Some(client) = watcher.socket.and_then(|socket| connect(&socket).ok()) {
                return Ok(client);
            }
            anyhow::ensure!(
                Instant::now() < until,
                "the scheduler's watcher does not start: its log says why"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// What was counted since this connection last asked.
    ///
    /// # Errors
    /// The scheduler has gone, or says why it cannot answer. Likewise for all below.
    pub fn metrics(&mut self) -> Result<Metrics> {
        self.scheduler.request("stats", Vec::new())
    }

    /// The tables, `rows` of each at the most.
    ///
    /// # Errors
    /// As above.
    pub fn view(&mut self, rows: usize) -> Result<View> {
        ask(self.watcher()?, "watch", &[("rows", rows.to_string())])
    }

    /// The cgroups that there are.
    ///
    /// # Errors
    /// As above.
    pub fn groups(&mut self) -> Result<Vec<GroupRow>> {
        ask(&mut self.scheduler, "cgroups", &[])
    }

    /// What happened to `pid` lately, the oldest first.
    ///
    /// # Errors
    /// As above.
    pub fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>> {
        ask(self.watcher()?, "history", &[("pid", pid.to_string())])
    }

    /// What happened since this connection last asked. Ask several times a second: what does not
    /// fit into the scheduler's memory meanwhile is lost, and counted.
    ///
    /// # Errors
    /// As above; or the answer is none of ours.
    pub fn batch(&mut self) -> Result<Batch> {
        wire::from_json(&ask(self.watcher()?, "events", &[])?)
    }

    /// Switches donation on, or off: then the scheduler only observes.
    ///
    /// # Errors
    /// As above.
    pub fn set_donating(&mut self, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        let donates: bool = ask(
            &mut self.scheduler,
            "control",
            &[("donate", value.to_owned())],
        )?;
        anyhow::ensure!(
            donates == on,
            "another scheduler runs this machine, beside which scx_proxy observes: there is no donation to switch"
        );
        Ok(())
    }
}
