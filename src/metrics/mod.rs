// SPDX-License-Identifier: GPL-2.0-only
//! `--metrics` and `scx_proxy metrics`: the scheduler's statistics in the OpenMetrics format, over
//! HTTP. The exporter is a process, and a client of the stats sockets like any other; with `--metrics`
//! the scheduler opens its port, and starts it.
//!
//! Data flow: the stats socket → `collect` (a thread) → `series`, with classes of locks from
//! `classes` and cgroups from `groups` → `serve` (another thread). `docs/metrics.md` lists what there is.

mod classes;
mod collect;
mod groups;
mod series;
mod serve;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use log::{info, warn};
use prometheus_client::registry::Registry;

#[cfg(feature = "fuzzed")]
pub(crate) use classes::Classes;
use series::Series;

/// The running exporter; dropped, it stops.
pub struct Exporter {
    stop: Arc<AtomicBool>,
}

/// Opens the port, and says in a line who can read what there. `programs`: labels may name programs.
///
/// # Errors
/// Nothing can listen at `addr`.
pub fn listen(addr: SocketAddr, programs: bool) -> Result<TcpListener> {
    let listener = TcpListener::bind(addr)
        .with_context(|| format!("cannot serve metrics at {addr}: name another address or port"))?;
    listener.set_nonblocking(true)?;
    let addr = listener.local_addr()?;
    let what = match programs {
        true => "programs and cgroups are named in them",
        false => "cgroups are named in them, programs are not (--metrics-names)",
    };
    if addr.ip().is_loopback() {
        info!("metrics: http://{addr}/metrics, for every user of this machine; {what}");
    } else {
        warn!("metrics: http://{addr}/metrics, for any client that can reach it; {what}");
    }
    Ok(listener)
}

impl Exporter {
    /// Serves what the scheduler at `socket` says, whenever there is one.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(listener: TcpListener, socket: &Path, programs: bool) -> Result<Self> {
        let mut registry = Registry::with_prefix("scx_proxy");
        let series = Series::new(&mut registry);
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, socket) = (stop.clone(), socket.to_owned());
        thread("proxy_metrics", move || {
            collect::run(&series, &socket, programs, &stopped);
        })?;
        let stopped = stop.clone();
        thread("proxy_scrape", move || {
            if let Err(error) = serve::run(listener, registry, &stopped) {
                warn!("metrics are no longer served: {error:#}");
            }
        })?;
        Ok(Self { stop })
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread
        .spawn(work)
        .with_context(|| format!("thread {name}"))?;
    Ok(())
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
