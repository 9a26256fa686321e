//! What the scheduler did: counters read from BPF, served over scx_stats,
//! printed by `--stats` and `--monitor`.

mod metrics;

pub use metrics::{Metrics, Readings};

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use scx_stats::prelude::*;

/// The stats server's data: each reader gets the deltas since its own last read.
pub fn server_data() -> StatsServerData<(), Metrics> {
    let open: Box<dyn StatsOpener<(), Metrics>> = Box::new(|(req, res)| {
        req.send(())?;
        let mut last = res.recv()?;
        let read: Box<dyn StatsReader<(), Metrics>> = Box::new(move |_args, (req, res)| {
            req.send(())?;
            let now = res.recv()?;
            let delta = now.since(&last);
            last = now;
            delta.to_json()
        });
        Ok(read)
    });
    StatsServerData::new()
        .add_meta(Metrics::meta())
        .add_ops("top", StatsOps { open, close: None })
}

/// Print the stats of the running scheduler every `interval` until `shutdown`.
pub fn monitor(interval: Duration, shutdown: Arc<AtomicBool>) -> Result<()> {
    scx_utils::monitor_stats::<Metrics>(
        &[],
        interval,
        || shutdown.load(Ordering::Relaxed),
        |metrics| {
            let mut out = std::io::stdout().lock();
            match metrics.print(&mut out).and_then(|()| out.flush()) {
                // the reader went away: nobody is left to print for
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
                other => Ok(other?),
            }
        },
    )
}
