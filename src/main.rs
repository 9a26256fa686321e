//! `scx_proxy`: parse, run, exit code.

use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use log::{LevelFilter, warn};
use scx_proxy::cli::{Command, DoctorOpts, MetricsOpts, Opts, RecordOpts, SwitchOpts, WatcherOpts};
use scx_proxy::doctor::Report;
use scx_proxy::loader::{Scheduler, preflight, verify};
use scx_proxy::locks::KernelFacts;
use scx_proxy::metrics::Exporter;
use scx_proxy::watch::{Client, client};
use scx_proxy::watcher::child::{self, Kept};
use scx_proxy::watcher::confine;
use scx_proxy::{manual, memory, metrics, output, record, replay, stats, top, watcher};
use simplelog::{ColorChoice, ConfigBuilder, TermLogger, TerminalMode};

fn init_log(verbose: u8) -> Result<()> {
    let level = if verbose > 0 {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
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
    TermLogger::init(level, config, TerminalMode::Stderr, colors).context("logging to stderr")
}

fn version() -> String {
    format!(
        "scx_proxy {}\n",
        scx_utils::build_id::full_version(env!("CARGO_PKG_VERSION"))
    )
}

/// Set when a signal asks us to end.
fn shutdown() -> Result<Arc<AtomicBool>> {
    let shutdown = Arc::new(AtomicBool::new(false));
    let (signalled, main_loop) = (shutdown.clone(), std::thread::current());
    let handler = move || {
        signalled.store(true, Ordering::Relaxed);
        main_loop.unpark();
    };
    ctrlc::set_handler(handler).context("handler for Ctrl-C")?;
    Ok(shutdown)
}

/// The port is opened here, where it can be said that it cannot; a process of its own serves there.
fn keep_exporter(addr: SocketAddr) -> Result<Kept> {
    let listener = metrics::listen(addr)?;
    let parent = std::process::id().to_string();
    let args = ["metrics", "--parent", &parent, "--socket", client::SOCKET];
    let args = args.map(str::to_owned).to_vec();
    Kept::start("proxy_metrics", args, move || {
        Ok(listener.try_clone()?.into())
    })
}

fn run(opts: &Opts) -> Result<()> {
    memory::begin();
    init_log(opts.verbose)?;
    let shutdown = shutdown()?;
    if let Some(secs) = opts.monitor {
        return stats::monitor(Duration::from_secs_f64(secs), shutdown);
    }
    preflight::check()?;
    let _exporter = opts.metrics.map(keep_exporter).transpose()?;
    if let Some(secs) = opts.stats {
        let shutdown = shutdown.clone();
        std::thread::spawn(move || {
            if let Err(e) = stats::monitor(Duration::from_secs_f64(secs), shutdown) {
                warn!("stats are no longer printed: {e:#}");
            }
        });
    }
    // outlives a restart: who switched it does not expect that a CPU that goes off line switches it back
    let donating = Arc::new(AtomicBool::new(!opts.observe));
    loop {
        let mut object = MaybeUninit::uninit();
        let scheduler = Scheduler::load(opts, &donating, memory::lock, &mut object)?;
        let exit = scheduler.run(&shutdown)?;
        // CPU hotplug: the kernel asks for a restart with the new set of CPUs
        if !exit.should_restart() || shutdown.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

fn verify(opts: &DoctorOpts) -> Result<ExitCode> {
    preflight::check_for_verifier()?;
    let mut flags = Opts::try_parse_from(["scx_proxy"])?;
    flags.locks = opts.locks;
    let verified = verify::verify(&flags, opts.verify_cpus)?;
    answer(&if opts.json {
        verified.to_json()?
    } else {
        verified.to_text()
    })
}

fn doctor(opts: &DoctorOpts) -> Result<ExitCode> {
    if opts.verify {
        return verify(opts);
    }
    let report = Report::of_this_machine(&opts.locks);
    let text = if opts.json {
        report.to_json()?
    } else {
        report.to_text()
    };
    output::print(&text)?;
    Ok(ExitCode::from(u8::from(!report.is_well())))
}

fn record(opts: &RecordOpts) -> Result<()> {
    record::run(opts, &*shutdown()?)
}

fn export(opts: &MetricsOpts) -> Result<()> {
    init_log(0)?;
    let listener = match opts.parent {
        Some(parent) => {
            let listener = child::begin("proxy_metrics", parent)?;
            confine::keep_capabilities(&[]).context("capabilities")?;
            confine::only_read()?;
            TcpListener::from(listener)
        }
        None => metrics::listen(opts.addr)?,
    };
    let shutdown = shutdown()?;
    let _exporter = Exporter::start(listener, &opts.socket)?;
    while !shutdown.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn watch(opts: &WatcherOpts) -> Result<ExitCode> {
    init_log(0)?;
    watcher::run(opts)?;
    Ok(ExitCode::SUCCESS)
}

fn switch(opts: &SwitchOpts, on: bool) -> Result<ExitCode> {
    Client::connect(&opts.socket)?.set_donating(on)?;
    Ok(ExitCode::SUCCESS)
}

fn help_stats() -> Result<ExitCode> {
    let mut text = Vec::new();
    stats::server_data(None, std::thread::current()).describe_meta(&mut text, None)?;
    answer(&String::from_utf8_lossy(&text))
}

fn answer(text: &str) -> Result<ExitCode> {
    output::print(text)?;
    Ok(ExitCode::SUCCESS)
}

/// What was asked for.
fn obey(opts: &Opts) -> Result<ExitCode> {
    match &opts.command {
        Some(Command::Doctor(opts)) => doctor(opts),
        Some(Command::Donate(opts)) => switch(opts, true),
        Some(Command::Observe(opts)) => switch(opts, false),
        Some(Command::Man { subcommand }) => answer(&manual::page(subcommand.as_deref())?),
        Some(Command::Completions { shell }) => answer(&manual::completions(*shell)?),
        Some(Command::Record(opts)) => record(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Replay(opts)) => replay::run(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Metrics(opts)) => export(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Watcher(opts)) => watch(opts),
        Some(Command::Top(opts)) => top::run(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Facts) => answer(&KernelFacts::live()?.to_string()),
        None if opts.version => answer(&version()),
        None if opts.help_stats => help_stats(),
        None => run(opts).map(|()| ExitCode::SUCCESS),
    }
}

/// No backtraces, whatever the environment asks for: to make one reads this program's file and takes many
/// megabytes, which a process whose memory is locked has no room for.
fn forbid_backtraces() {
    for name in ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"] {
        // SAFETY: no other thread has been started yet.
        unsafe { std::env::remove_var(name) };
    }
}

fn main() -> ExitCode {
    forbid_backtraces();
    let result = match Opts::try_parse() {
        Ok(opts) => obey(&opts),
        // --help is an answer, the rest are refusals
        Err(said) => output::answer(&said)
            .map(|()| ExitCode::from(u8::from(said.use_stderr())))
            .map_err(Into::into),
    };
    result.unwrap_or_else(|e| {
        output::complain(&format!("error: {e:#}\n"));
        ExitCode::FAILURE
    })
}
