// SPDX-License-Identifier: GPL-2.0-only
//! What the scheduler did: counters read from BPF, served over scx_stats (`server`), printed by `--stats` and `--monitor`.

mod groups;
mod metrics;
mod server;

pub use groups::GroupRow;
pub use metrics::{Metrics, Readings};
pub use server::{Answer, NO_AGENT, Request, server_data};

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

/// Print the stats of the running scheduler every `interval` until `shutdown`.
pub fn monitor(interval: Duration, shutdown: Arc<AtomicBool>) -> Result<()> {
    scx_utils::monitor_stats::<Metrics>(
        &[],
        interval,
        || shutdown.load(Ordering::Relaxed),
        |metrics| {
            let mut out = std::io::stdout().lock();
            match metrics.print(&mut out).and_then(|()| out.flush()) {
                // the reader went away: there is no reader left
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
                other => Ok(other?),
            }
        },
    )
}
