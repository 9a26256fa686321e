// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler as a service: the log and its journal, signals, and what a service manager is told.
//! It owns the settings that hold, and reads them again on SIGHUP. What can change at run time is listed
//! in `config`.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use log::{LevelFilter, debug, error, info, warn};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::cli::SOCKET;
use crate::config::Settings;
use crate::loader::Scheduler;
use crate::metrics;
use crate::output;
use crate::watcher::child::Kept;

/// Log to the journal, with its fields, if that is where the standard error leads; else to there.
///
/// # Errors
/// There is a log already, or no journal.
pub fn init_log(verbose: u8) -> Result<()> {
    if connected_to_journal() {
        let log = JournalLog::new().context("logging to the journal")?;
        log.with_extra_fields([("SCX_PROXY_VERSION", env!("CARGO_PKG_VERSION"))])
            .install()?;
    } else {
        let config = ConfigBuilder::new()
            .set_time_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_thread_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        // the logger's own choice does not ask whether there is a terminal
        let colors = match output::has_colors(&std::io::stderr()) {
            true => ColorChoice::AlwaysAnsi,
            false => ColorChoice::Never,
        };
        TermLogger::init(LevelFilter::Debug, config, TerminalMode::Stderr, colors)
            .context("logging to stderr")?;
    }
    set_level(verbose);
    Ok(())
}

fn set_level(verbose: u8) {
    log::set_max_level(match verbose {
        0 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    });
}

/// Say why the program ends: to the journal as an error, else to the standard error.
pub fn report_error(why: &str) {
    if log::max_level() != LevelFilter::Off && connected_to_journal() {
        error!("{why}");
    } else {
        output::print_error(&format!("error: {why}\n"));
    }
}

/// What signals have asked for.
#[derive(Debug, Clone, Default)]
struct Asked {
    end: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

/// Closing a terminal ends what runs there; a service has no terminal.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

impl Asked {
    /// Look for signals from now on; they wake the thread that calls this.
    fn by_signals() -> Result<Self> {
        let asked = Self::default();
        let (told, main_loop) = (asked.clone(), std::thread::current());
        let hangup_ends = has_terminal();
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signal handlers")?;
        let look = move || {
            for signal in signals.forever() {
                let flag = match signal {
                    SIGHUP if !hangup_ends => &told.reload,
                    _ => &told.end,
                };
                flag.store(true, Ordering::Relaxed);
                main_loop.unpark();
            }
        };
        let thread = std::thread::Builder::new().name("proxy_signals".into());
        thread.spawn(look).context("thread for signals")?;
        Ok(asked)
    }
}

/// A scheduler that is to run, as its surroundings see it.
pub struct Service {
    settings: Settings,
    asked: Asked,
    exporter: Option<Kept>,
    /// Between two signs of life.
    sign: Option<Duration>,
    signed: Instant,
}

/// Without a service manager this does nothing.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        debug!("the service manager cannot be told: {e}");
    }
}

/// The port is opened here, where it can be said that it cannot; a process of its own serves there.
fn exporter(settings: &Settings) -> Result<Option<Kept>> {
    let Some(addr) = settings.opts.metrics else {
        return Ok(None);
    };
    let listener = metrics::listen(addr, settings.opts.metrics_names)?;
    let parent = std::process::id().to_string();
    let args = ["metrics", "--parent", &parent, "--socket", SOCKET];
    let names = settings.opts.metrics_names.then_some("--metrics-names");
    let args = args.into_iter().chain(names).map(str::to_owned).collect();
    let kept = Kept::start("proxy_metrics", args, move || {
        Ok(listener.try_clone()?.into())
    })?;
    Ok(Some(kept))
}

impl Service {
    /// Signals from now on; nothing else has begun.
    ///
    /// # Errors
    /// Signals cannot be handled.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self {
            settings,
            asked: Asked::by_signals()?,
            exporter: None,
            // half of what is asked, as sd_watchdog_enabled(3) advises
            sign: sd_notify::watchdog_enabled().map(|interval| interval / 2),
            signed: Instant::now(),
        })
    }

    /// Set once it is to end.
    #[must_use]
    pub fn end(&self) -> Arc<AtomicBool> {
        self.asked.end.clone()
    }

    /// Serve metrics, if that is asked for.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn serve_metrics(&mut self) -> Result<()> {
        self.exporter = exporter(&self.settings)?;
        Ok(())
    }

    /// The scheduler is loaded.
    pub fn ready(&mut self) {
        self.signed = Instant::now();
        let state = match self.settings.opts.observe {
            true => "scheduling, observing only",
            false => "scheduling",
        };
        tell(&[NotifyState::Ready, NotifyState::Status(state)]);
    }

    /// It is being loaded anew, which takes a while.
    pub fn loads_again(&self) {
        let state = NotifyState::Status("loading again: a CPU went on or off line");
        tell(&[NotifyState::Watchdog, state]);
    }

    /// It ends.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Called while the scheduler runs, several times a second.
    pub fn look(&mut self, scheduler: &mut Scheduler<'_>) {
        if self.sign.is_some_and(|sign| self.signed.elapsed() >= sign) {
            self.signed = Instant::now();
            tell(&[NotifyState::Watchdog]);
        }
        if self.asked.reload.swap(false, Ordering::Relaxed) {
            self.reload(scheduler);
        }
    }

    /// A file that is wrong in any place changes nothing.
    fn reload(&mut self, scheduler: &mut Scheduler<'_>) {
        let newer = match self.settings.again() {
            Ok(newer) => newer,
            Err(e) => {
                return error!(
                    "configuration not reloaded, all stays as it was: {}",
                    line(&e)
                );
            }
        };
        let changed = newer.changed(&self.settings).join(", ");
        if newer.opts.metrics != self.settings.opts.metrics {
            match exporter(&newer) {
                Ok(exporter) => self.exporter = exporter,
                Err(e) => {
                    return error!("configuration not reloaded, all stays as it was: {e:#}");
                }
            }
        }
        if newer.opts.observe != self.settings.opts.observe {
            scheduler.donate(!newer.opts.observe);
        }
        set_level(newer.opts.verbose);
        let later = self.settings.take_from(&newer).join(", ");
        match changed.as_str() {
            "" => info!("configuration reloaded: nothing has changed"),
            changed => info!("configuration reloaded: {changed}"),
        }
        if !later.is_empty() {
            warn!("takes effect only when scx_proxy is started again: {later}");
        }
    }
}

/// One line in the log is one message.
fn line(error: &crate::config::Wrong) -> String {
    let said = error.to_string();
    said.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
