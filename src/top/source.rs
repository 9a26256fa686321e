// SPDX-License-Identifier: GPL-2.0-only
//! Where `top` reads from: a running scheduler, or whatever else can say the same (a recording
//! that is played again). A [`Source`] is used by one thread only (`worker`), and may take its time.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use scx_stats::prelude::StatsErrno;

use crate::client::Client;
use crate::naming::cgroups::Paths;
use crate::stats::{GroupRow, Metrics};
use crate::watch::View;
use crate::watch::view::HistoryLine;

/// Rows that are asked for of each table.
pub const ROWS: usize = 1000;

/// All that is to be seen at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The tables.
    pub view: View,
    /// What was counted since the reading before; `None`: this source counts nothing.
    pub metrics: Option<Metrics>,
    /// The cgroups, with their paths; empty: this source knows none.
    pub groups: Vec<(String, GroupRow)>,
}

/// Something to watch.
pub trait Source: Send {
    /// The next reading. It is asked for once in an interval; after an error again in a second.
    ///
    /// # Errors
    /// Why there is none now, as one line for the header.
    fn read(&mut self) -> Result<Reading>;

    /// What happened to `pid` up to the last reading, the oldest first.
    ///
    /// # Errors
    /// Why it cannot be said, as one line for a person.
    fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>>;

    /// Switches donation on or off.
    ///
    /// # Errors
    /// Why not, as one line for a person.
    fn set_donating(&mut self, _on: bool) -> Result<()> {
        bail!("this is no running scheduler: there is nothing to switch")
    }

    /// How much of a finite source has been read, and of how much; it is not read beyond its end.
    fn position(&self) -> Option<(u64, u64)> {
        None
    }
}

/// A running scheduler; it may come and go.
pub struct Live {
    socket: PathBuf,
    client: Option<Client>,
    paths: Paths,
}

impl Live {
    /// The scheduler that listens on `socket`, now or later.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
            client: None,
            paths: Paths::default(),
        }
    }

    /// Asks; a connection that fails is given up, so that the next reading makes a new one.
    fn with<T>(&mut self, ask: impl FnOnce(&mut Client) -> Result<T>) -> Result<T> {
        let Some(client) = &mut self.client else {
            bail!("there is no scheduler now");
        };
        let answer = ask(client);
        // an answer that says no is an answer
        if let Err(error) = &answer
            && error.downcast_ref::<StatsErrno>().is_none()
        {
            self.client = None;
        }
        answer
    }

    /// A reading, or in all its parts why there is none.
    ///
    /// # Errors
    /// There is no scheduler, or it refuses.
    pub fn read_once(&mut self) -> Result<Reading> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.socket)?);
        }
        let (metrics, view, groups) =
            self.with(|client| Ok((client.metrics()?, client.view(ROWS)?, client.groups()?)))?;
        Ok(Reading {
            view,
            metrics: Some(metrics),
            groups: self.paths.name(groups, |group| group.id),
        })
    }
}

impl Source for Live {
    fn read(&mut self) -> Result<Reading> {
        self.read_once().map_err(|error| {
            let socket = self.socket.display();
            if self.client.is_some() {
                return anyhow!("the scheduler at {socket} refuses: {}", one_line(&error));
            }
            anyhow!(
                "waiting for the scheduler at {socket} ... ({})",
                error.root_cause()
            )
        })
    }

    fn history(&mut self, pid: u32) -> Result<Vec<HistoryLine>> {
        self.with(|client| client.history(pid))
            .map_err(|error| anyhow!("no history: {}", one_line(&error)))
    }

    fn set_donating(&mut self, on: bool) -> Result<()> {
        self.with(|client| client.set_donating(on))
            .map_err(|error| anyhow!("not switched: {}", one_line(&error)))
    }
}

/// The server's refusals are a debug print of an error, with its backtrace.
fn one_line(error: &anyhow::Error) -> String {
    let text = error.root_cause().to_string();
    let text = text.trim_matches('"');
    text.split("\\n").next().unwrap_or(text).to_owned()
}
