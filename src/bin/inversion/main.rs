// SPDX-License-Identifier: GPL-2.0-only
//! `inversion` stages priority inversions on kernel locks from userspace and prints the inversion
//! factor. This file owns the program's flow: parse, run or compare, print, exit status.
//!
//! The modules: `lock` has one recipe per lock; `trial` runs one trial of it with the `workers`
//! (`spawn`, `child`, `task`, `gate`, `board`) and the `hogs` placed by a `topology`, in `groups` if asked for; `verdict` decides whether it counts;
//! `scenario` repeats trials; `report`, `text` and `compare` present them. `rename` stages nothing: it
//! measures what a task meets by itself.

mod alias;
mod board;
mod child;
mod cli;
mod compare;
mod gate;
mod groups;
mod hogs;
mod lock;
mod missing_page;
mod policy;
mod rename;
mod report;
mod scenario;
mod shared;
mod spawn;
mod summary;
mod sys;
mod task;
mod text;
mod topology;
mod transaction;
mod trial;
mod verdict;
mod weight;
mod workers;

use anyhow::{Context, Result};
use clap::Parser;
use cli::Cli;
use report::{Report, ScenarioReport};
use scx_proxy::output;
use std::path::PathBuf;
use std::process::ExitCode;

const EXIT_ERROR: u8 = 1;
const EXIT_NOT_STAGED: u8 = 2;
const EXIT_INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            let refused = output::answer(&said).is_err() || said.use_stderr();
            return ExitCode::from(if refused { EXIT_ERROR } else { 0 });
        }
    };
    match run(&cli) {
        Ok(code) => code,
        Err(error) if error.is::<sys::Interrupted>() => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            output::print_error(&format!("inversion: {error:#}\n"));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if cli.list {
        return print(&cli::list()).map(|()| ExitCode::SUCCESS);
    }
    if let Some(files) = cli.compare.as_deref() {
        return print_comparison(files).map(|()| ExitCode::SUCCESS);
    }
    if let Some(cli::Command::Rename(terms)) = &cli.command {
        sys::catch_signals();
        rename::run(terms, |line| output::print_error(&format!("{line}\n")))?;
        return Ok(ExitCode::SUCCESS);
    }
    cli.check()?;
    sys::catch_signals();
    let report = scenario::run_all(cli, |line| output::print_error(&format!("{line}\n")))?;
    report::write_json(&report, cli.json.as_deref(), &text::table(&report), print)?;
    let fine = report.scenarios.iter().all(ScenarioReport::is_fine);
    Ok(ExitCode::from(if fine { 0 } else { EXIT_NOT_STAGED }))
}

fn print_comparison(files: &[PathBuf]) -> Result<()> {
    let reports: Vec<_> = files
        .iter()
        .map(|file| Report::load(file))
        .collect::<Result<_>>()?;
    let table = compare::compare(&reports).with_context(|| {
        let names: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        format!("cannot compare {}", names.join(" and "))
    })?;
    print(&table)
}

fn print(text: &str) -> Result<()> {
    output::print(text).context("cannot write to the standard output")
}
