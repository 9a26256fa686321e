//! `scx_proxy`: parse, run, exit code.

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use log::{LevelFilter, warn};
use scx_proxy::cli::{Command, DoctorOpts, Opts};
use scx_proxy::doctor::Report;
use scx_proxy::loader::{Scheduler, preflight};
use scx_proxy::locks::KernelFacts;
use scx_proxy::{output, stats, top};
use scx_rustland_core::ALLOCATOR;
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
    TermLogger::init(level, config, TerminalMode::Stderr, ColorChoice::Auto)
        .context("logging to stderr")
}

fn version() -> String {
    format!(
        "scx_proxy {}",
        scx_utils::build_id::full_version(env!("CARGO_PKG_VERSION"))
    )
}

/// From here on nothing that this process touches has to be paged in, so that the agent
/// never waits for memory under the scheduler that it serves. Using `ALLOCATOR` also makes
/// it the program's global allocator: a heap of 64 MiB that is part of the program.
fn lock_memory() {
    // It takes the memory that the kernel would otherwise move about to compact it, too, by
    // a sysctl for the whole machine. That would outlive a `kill -9`, and a page that moves
    // costs the agent microseconds: the sysctl gets its value back at once.
    ALLOCATOR.lock_memory();
    ALLOCATOR.unlock_memory();
}

fn run(opts: &Opts) -> Result<()> {
    init_log(opts.verbose)?;
    let shutdown = Arc::new(AtomicBool::new(false));
    let signalled = shutdown.clone();
    ctrlc::set_handler(move || signalled.store(true, Ordering::Relaxed))
        .context("handler for Ctrl-C")?;
    if let Some(secs) = opts.monitor {
        return stats::monitor(Duration::from_secs_f64(secs), shutdown);
    }
    preflight::check()?;
    if let Some(secs) = opts.stats {
        let shutdown = shutdown.clone();
        std::thread::spawn(move || {
            if let Err(e) = stats::monitor(Duration::from_secs_f64(secs), shutdown) {
                warn!("stats are no longer printed: {e:#}");
            }
        });
    }
    loop {
        let mut object = MaybeUninit::uninit();
        let scheduler = Scheduler::load(opts, &mut object)?;
        lock_memory();
        let exit = scheduler.run(&shutdown)?;
        // CPU hotplug: the kernel asks for a restart with the new set of CPUs
        if !exit.should_restart() || shutdown.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

fn doctor(opts: &DoctorOpts) -> Result<ExitCode> {
    let report = Report::of_this_machine(&opts.locks);
    let text = if opts.json {
        report.to_json()?
    } else {
        report.to_text()
    };
    output::print(&text)?;
    Ok(ExitCode::from(u8::from(!report.is_well())))
}

fn facts() -> Result<ExitCode> {
    output::print(&KernelFacts::live()?.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let opts = match Opts::try_parse() {
        Ok(opts) => opts,
        Err(e) => {
            let _ = e.print();
            // --help is an answer, the rest are refusals
            return ExitCode::from(u8::from(e.use_stderr()));
        }
    };
    if opts.version {
        println!("{}", version());
        return ExitCode::SUCCESS;
    }
    let result = match &opts.command {
        Some(Command::Doctor(opts)) => doctor(opts),
        Some(Command::Facts) => facts(),
        Some(Command::Top(opts)) => top::run(opts).map(|()| ExitCode::SUCCESS),
        None if opts.help_stats => stats::server_data()
            .describe_meta(&mut std::io::stdout(), None)
            .map(|()| ExitCode::SUCCESS),
        None => run(&opts).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}
