// SPDX-License-Identifier: GPL-2.0-only
//! `schedload` makes ordinary scheduling loads and prints what came of them, one JSON object a run. It knows
//! nothing of the scheduler under it. This file owns the program's flow: parse, run, print, exit status.
//!
//! The rooms: `stage` starts tasks, releases them together and ends them (`crew`, `shared`, `sys`); `spin`,
//! `sleep`, `pipe`, `forks`, `requests`, `frames` and `produce` are what a task can do (`work`: compute), and what is
//! measured of it (`samples`); `load` makes the subcommands of these; `spec` reads groups of spinners and lists of
//! CPUs, `summary` sums samples up.

mod cli;
mod crew;
mod forks;
mod frames;
mod load;
mod pipe;
mod produce;
mod requests;
mod samples;
mod shared;
mod sleep;
mod spec;
mod spin;
mod stage;
mod summary;
mod sys;
mod work;

use anyhow::{Context, Result};
use clap::Parser;
use cli::Cli;
use scx_proxy::output;
use std::process::ExitCode;

const EXIT_ERROR: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            let refused = output::answer(&said).is_err() || said.use_stderr();
            return ExitCode::from(if refused { EXIT_ERROR } else { 0 });
        }
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&format!("schedload: {error:#}\n"));
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let report = load::run(&cli.load)?;
    output::print(&format!("{report}\n")).context("cannot write to the standard output")
}
