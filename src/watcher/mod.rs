// SPDX-License-Identifier: GPL-2.0-only
//! The watcher: a process beside the scheduler that names, sums up and shows what the scheduler only
//! counts. It runs while there are clients. If it dies or hangs the scheduler goes on as if nothing were,
//! and starts another when it is next asked for.
//!
//! Data flow: the agent's stream of events → `keeper` (in the scheduler's process: starts the watcher,
//! feeds it, ends it) → `feed` (the bytes between the two) → `service` (`crate::naming`,
//! `crate::watch`) → `server`, a stats socket of its own, for `crate::client::Client`. `child` is what all
//! processes have in common that the scheduler starts, `confine` what they may not do.

pub mod child;
pub mod confine;
pub(crate) mod feed;
mod keeper;
pub(crate) mod requests;
pub(crate) mod server;
mod service;

pub use keeper::{Handle, Keeper, SOCKET};

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use scx_stats::prelude::StatsServer;

use crate::cli::WatcherOpts;
use crate::naming;
use crate::output::private_umask;
use feed::Outbox;
use server::Clients;

/// The watcher's whole life, in its own process: until the scheduler ends, or there was no client for a
/// while. Its standard input is the keeper's end of the feed.
///
/// # Errors
/// No socket could be made, or no thread.
pub fn run(opts: &WatcherOpts) -> Result<()> {
    let feed = child::begin("proxy_watcher", opts.parent)?;
    naming::use_proc(!opts.no_proc);
    // before there are other threads
    confine::keep_capabilities(&confine::NAMING).context("capabilities")?;
    let feed = UnixStream::from(feed);
    let outbox = Outbox::new(feed.try_clone().context("the feed")?);
    let clients = Arc::new(Clients::default());
    let (requests, incoming) = requests::channel();
    let server =
        StatsServer::new(server::server_data(requests, clients.clone())).set_path(&opts.socket);
    let server = private_umask(|| server.launch()).context("the watcher's socket")?;
    confine::only_read()?;
    let events = feed::listen(feed, outbox.clone())?;
    let service = service::Service::new(events, incoming, outbox, clients)?;
    service.run();
    drop(server);
    Ok(())
}

/// Both ends of a feed.
fn feed_pair() -> Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair().context("a pair of sockets")?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}
