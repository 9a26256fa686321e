// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy`: parse, run, exit code.

use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use log::{info, warn};
use scx_proxy::cli::{
    BugreportOpts, Command, DoctorOpts, MetricsOpts, ObserveOpts, Opts, RecordOpts, SwitchOpts,
    WatcherOpts,
};
use scx_proxy::client::Client;
use scx_proxy::config::{Settings, Wrong};
use scx_proxy::doctor::{Report, preflight};
use scx_proxy::loader::{Ejected, Scheduler, verify};
use scx_proxy::locks::KernelFacts;
use scx_proxy::metrics::Exporter;
use scx_proxy::service::{self, Service};
use scx_proxy::watcher::child;
use scx_proxy::watcher::confine;
use scx_proxy::{
    beside, bugreport, manual, memory, metrics, output, record, replay, stats, top, watcher,
};

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

fn monitor(opts: &Opts, secs: f64) -> Result<()> {
    service::init_log(opts.verbose)?;
    stats::monitor(Duration::from_secs_f64(secs), shutdown()?)
}

fn run(settings: &Settings) -> Result<()> {
    let opts = &settings.opts;
    memory::begin();
    service::init_log(opts.verbose)?;
    let mut service = Service::new(settings.clone())?;
    let shutdown = service.end();
    if let Some(file) = &settings.file {
        info!("settings of {}", file.display());
    }
    preflight::check()?;
    service.serve_metrics()?;
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
        service.ready();
        let exit = scheduler.run(&shutdown, |scheduler| service.look(scheduler));
        let exit = exit.map_err(Ejected::or_fault)?;
        // CPU hotplug: the kernel asks for a restart with the new set of CPUs
        if !exit.should_restart() || shutdown.load(Ordering::Relaxed) {
            service.stopping();
            return Ok(());
        }
        service.loads_again();
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

fn bugreport(opts: &BugreportOpts) -> Result<()> {
    bugreport::run(opts, &version(), &*shutdown()?)
}

fn export(opts: &MetricsOpts) -> Result<()> {
    service::init_log(0)?;
    let listener = match opts.parent {
        Some(parent) => {
            let listener = child::begin("proxy_metrics", parent)?;
            confine::keep_capabilities(&[]).context("capabilities")?;
            confine::only_read()?;
            TcpListener::from(listener)
        }
        None => metrics::listen(opts.addr, opts.metrics_names)?,
    };
    let shutdown = shutdown()?;
    let _exporter = Exporter::start(listener, &opts.socket, opts.metrics_names)?;
    while !shutdown.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn watch(opts: &WatcherOpts) -> Result<ExitCode> {
    service::init_log(0)?;
    watcher::run(opts)?;
    Ok(ExitCode::SUCCESS)
}

fn donate(opts: &SwitchOpts) -> Result<ExitCode> {
    Client::connect(&opts.socket)?.set_donating(true)?;
    Ok(ExitCode::SUCCESS)
}

fn observe(opts: &ObserveOpts) -> Result<ExitCode> {
    if !opts.beside {
        Client::connect(&opts.socket)?.set_donating(false)?;
        return Ok(ExitCode::SUCCESS);
    }
    service::init_log(0)?;
    answer(&beside::run(opts, &*shutdown()?)?)
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

/// Runs the subcommand, or the scheduler.
fn execute(settings: &Settings) -> Result<ExitCode> {
    let opts = &settings.opts;
    match &opts.command {
        Some(Command::Doctor(opts)) => doctor(opts),
        Some(Command::Donate(opts)) => donate(opts),
        Some(Command::Observe(opts)) => observe(opts),
        Some(Command::Man { subcommand }) => answer(&manual::page(subcommand.as_deref())?),
        Some(Command::Completions { shell }) => answer(&manual::completions(*shell)?),
        Some(Command::Record(opts)) => record(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Bugreport(opts)) => bugreport(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Replay(opts)) => replay::run(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Metrics(opts)) => export(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Watcher(opts)) => watch(opts),
        Some(Command::Top(opts)) => top::run(opts).map(|()| ExitCode::SUCCESS),
        Some(Command::Facts) => answer(&KernelFacts::live()?.to_string()),
        None if opts.version => answer(&version()),
        None if opts.help_stats => help_stats(),
        None if opts.print_config => answer(&settings.to_toml()),
        None => match opts.monitor {
            Some(secs) => monitor(opts, secs),
            None => run(settings),
        }
        .map(|()| ExitCode::SUCCESS),
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
    let result = match Settings::new(std::env::args_os()) {
        Ok(settings) => execute(&settings),
        // --help is an answer, the rest are refusals
        Err(Wrong::CommandLine(said)) => output::answer(&said)
            .map(|()| ExitCode::from(u8::from(said.use_stderr())))
            .map_err(Into::into),
        Err(wrong) => Err(wrong.into()),
    };
    result.unwrap_or_else(|e| {
        service::report_error(&format!("{e:#}"));
        match e.downcast_ref::<Ejected>() {
            Some(ejected) => ExitCode::from(ejected.cause.exit_code()),
            None => ExitCode::FAILURE,
        }
    })
}
