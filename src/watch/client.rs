// SPDX-License-Identifier: GPL-2.0-only
//! A watcher's end of the stats socket. Every consumer comes this way: `top`, `record`, `--metrics`.
//!
//! Targets of scx_stats' request `stats`: none for [`Metrics`], `watch` for a [`View`], `history`
//! for the events of a task, `events` for a [`Batch`], `control` to switch donation.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use scx_stats::StatsClient;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::view::HistoryLine;
use super::{Batch, View, wire};
use crate::stats::{GroupRow, Metrics};

/// Where a running scheduler listens.
pub const SOCKET: &str = "/var/run/scx/root/stats";

/// Longest time that one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to a running scheduler.
pub struct Client(StatsClient);

impl Client {
    /// Connects to the scheduler that listens on `socket`.
    ///
    /// # Errors
    /// Nobody listens there, or not to us.
    pub fn connect(socket: &Path) -> Result<Self> {
        let timeout_ms = u64::try_from(TIMEOUT.as_millis())?;
        let client = StatsClient::new()
            .set_path(socket)
            .connect(Some(timeout_ms));
        client.map(Self).with_context(|| {
            format!(
                "cannot connect to a scheduler at {}: is scx_proxy running, and are you root?",
                socket.display()
            )
        })
    }

    fn ask<T: DeserializeOwned>(&mut self, target: &str, args: &[(&str, String)]) -> Result<T> {
        let mut all = vec![("target".to_owned(), target.to_owned())];
        all.extend(
            args.iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        match self.0.request("stats", all)? {
            // large answers come as text
            Value::String(text) => Ok(serde_json::from_str(&text)?),
            value => Ok(serde_json::from_value(value)?),
        }
    }

    /// What was counted since this connection last asked.
    ///
    /// # Errors
    /// The scheduler has gone, or says why it cannot answer. Likewise for all below.
    pub fn metrics(&mut self) -> Result<Metrics> {
        self.0.request("stats", Vec::new())
    }

    /// The tables, `rows` of each at the most.
    ///
    /// # Errors
    /// As above.
    pub fn view(&mut self, rows: usize) -> Result<View> {
        self.ask("watch", &[("rows", rows.to_string())])
    }

    /// The cgroups that there are.
    ///
    /// # Errors
    /// As above.
    pub fn groups(&mut self) -> Result<Vec<GroupRow>> {
        self.ask("cgroups", &[])
    }

    /// What happened to `pid` lately, the oldest first.
    ///
    /// # Errors
    /// As above.
    pub fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>> {
        self.ask("history", &[("pid", pid.to_string())])
    }

    /// What happened since this connection last asked. Ask several times a second: what does not
    /// fit into the scheduler's memory meanwhile is lost, and counted.
    ///
    /// # Errors
    /// As above; or the answer is none of ours.
    pub fn batch(&mut self) -> Result<Batch> {
        wire::from_json(&self.ask("events", &[])?)
    }

    /// Switches donation on, or off: then the scheduler only observes.
    ///
    /// # Errors
    /// As above.
    pub fn set_donating(&mut self, on: bool) -> Result<()> {
        let value = if on { "on" } else { "off" };
        self.ask::<bool>("control", &[("donate", value.to_owned())])?;
        Ok(())
    }
}
