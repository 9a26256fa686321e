// SPDX-License-Identifier: GPL-2.0-only
//! Owns the command line: subcommands, options, ranges, help.

use crate::spec::{Cpus, Group};
use clap::{Args, Parser, Subcommand};
use std::time::Duration;

/// Make an ordinary scheduling load and print what came of it, as one JSON object.
///
/// It runs under whatever scheduler the machine has, so that schedulers can be compared. All of its tasks are
/// processes, and all of them end with it. Times in the output are in the unit that ends the name; a share is a
/// part of one CPU. Negative nice values need root.
///
/// SPEC is a group of spinners, which never sleep: COUNT[xNICE|xidle][@CPULIST]. 3 is three of nice 0 that run
/// anywhere, 1500x19@0 is 1,500 of nice 19 on CPU 0, 1xidle@0,2-3 is one of SCHED_IDLE on three CPUs.
///
/// Exit status: 0, or 1 for errors.
#[derive(Debug, Parser)]
#[command(name = "schedload", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub load: Load,
}

#[derive(Debug, Subcommand)]
pub enum Load {
    /// Groups of spinners: what share of a CPU each gets, and how long it stands still
    Spin {
        /// Groups of spinners
        #[arg(long, value_name = "SPEC", required = true, num_args = 1..)]
        spec: Vec<Group>,
        #[command(flatten)]
        time: Time,
    },
    /// Tasks that sleep again and again: how late each wakes and runs
    Sleepers {
        /// How many of them
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
        /// How long each sleeps at a time, in us
        #[arg(long, value_name = "US", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        sleep_us: u64,
        /// Pin each to one CPU: the first to the first of these, the second to the second, then from the start
        #[arg(long, value_name = "CPULIST", conflicts_with = "anywhere")]
        cpus: Option<Cpus>,
        /// Let them run on every CPU, which is the default
        #[arg(long)]
        anywhere: bool,
        /// Nice value of each
        #[arg(long, value_name = "NICE", default_value_t = 0, allow_negative_numbers = true,
              value_parser = clap::value_parser!(i32).range(-20..=19))]
        nice: i32,
        #[command(flatten)]
        beside: Beside,
        #[command(flatten)]
        time: Time,
    },
    /// Pairs of processes that pass a byte to and fro: round trips a second
    Pipe {
        /// How many pairs
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        pairs: u32,
        /// End when each pair has made N round trips, instead of after --secs
        #[arg(long, value_name = "N", conflicts_with = "secs", value_parser = clap::value_parser!(u64).range(1..))]
        rounds: Option<u64>,
        /// Where both processes of a pair may run [default: anywhere]
        #[arg(long, value_name = "CPULIST")]
        cpus: Option<Cpus>,
        #[command(flatten)]
        beside: Beside,
        #[command(flatten)]
        time: Time,
    },
    /// A spinner on CPU 0 and one on CPU 1, a pair that plays ping-pong from CPU 0 on and may run on both, and a
    /// task on CPU 0 that sleeps 10 ms at a time
    ///
    /// Where the two that wake each other are always pulled to the waker's CPU, the spinner there stands still.
    Sync {
        #[command(flatten)]
        time: Time,
    },
    /// Processes that fork, of which each child computes and exits: forks a second
    Forks {
        /// How many fork at the same time, each after its last child has exited [default: one a CPU]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        jobs: Option<u32>,
        /// For how long each child computes, in us
        #[arg(long, value_name = "US", default_value_t = 1000, value_parser = us())]
        child_us: u64,
        #[command(flatten)]
        time: Time,
    },
    /// A messenger that posts requests at a fixed rate, and workers that compute for each: wakeups, requests, rate
    ///
    /// A request counts from when it was due. The queue has room for 32 to 64; what finds none is lost.
    Requests {
        /// Work that is due, in per cent of what all CPUs can do
        #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
        load: u64,
        /// CPU time of a request, in us
        #[arg(long, value_name = "US", default_value_t = 2000, value_parser = us())]
        work_us: u64,
        /// How many workers [default: two a CPU]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        workers: Option<u32>,
        #[command(flatten)]
        beside: Beside,
        #[command(flatten)]
        time: Time,
    },
    /// A pipeline of three stages that compute in turn, a frame a period: frame times, and how many frames are late
    Frames {
        /// The period, in us
        #[arg(long, value_name = "US", default_value_t = 16_000, value_parser = us())]
        period_us: u64,
        /// CPU time of each stage, in us
        #[arg(long, value_name = "US", default_value_t = 2000, value_parser = us())]
        stage_us: u64,
        /// How many jobs run beside it, each a child that computes for --child-us after the other, as compilers do
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
        jobs: u32,
        /// For how long each child of a job computes, in us
        #[arg(long, value_name = "US", default_value_t = 20_000, value_parser = us())]
        child_us: u64,
        #[command(flatten)]
        time: Time,
    },
    /// Pairs of a producer and a consumer that both compute, with room for 8 to 16 items between them: items a second
    Produce {
        /// How many pairs
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
        pairs: u32,
        /// CPU time that it takes to make an item, in us
        #[arg(long, value_name = "US", default_value_t = 500, value_parser = us())]
        produce_us: u64,
        /// CPU time that it takes to use an item, in us
        #[arg(long, value_name = "US", default_value_t = 500, value_parser = us())]
        consume_us: u64,
        #[command(flatten)]
        time: Time,
    },
}

fn us() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000_000)
}

#[derive(Debug, Args)]
pub struct Beside {
    /// Groups of spinners that run all the while
    #[arg(long, value_name = "SPEC", num_args = 1..)]
    pub beside: Vec<Group>,
}

#[derive(Debug, Args)]
pub struct Time {
    /// How long to measure, in seconds
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = secs)]
    pub secs: Duration,
    /// How long the load runs before that, in seconds
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = secs)]
    pub settle: Duration,
}

const SECS_MAX: f64 = 86_400.0;

fn secs(text: &str) -> Result<Duration, String> {
    let secs: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    if !(0.001..=SECS_MAX).contains(&secs) {
        return Err(format!("not in 0.001..={SECS_MAX}"));
    }
    Ok(Duration::from_secs_f64(secs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("schedload").chain(words.iter().copied()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn groups_are_given_at_once_or_one_by_one() {
        for words in [
            &["spin", "--spec", "1", "2x5@0", "--secs", "0.5"][..],
            &["spin", "--spec", "1", "--secs", "0.5", "--spec", "2x5@0"],
        ] {
            match parse(words).map(|cli| cli.load) {
                Ok(Load::Spin { spec, time }) => {
                    assert_eq!(spec.len(), 2);
                    assert_eq!(time.secs, Duration::from_millis(500));
                }
                other => panic!("{words:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn bad_words_are_refused_and_named() {
        for (words, says) in [
            (&["spin"][..], "--spec"),
            (&["spin", "--spec", "0"], "0 spinners"),
            (&["spin", "--spec", "1", "--secs", "soon"], "not a number"),
            (&["spin", "--spec", "1", "--secs", "0"], "0.001..="),
            (&["sleepers", "--cpus", "0", "--anywhere"], "--anywhere"),
            (&["sleepers", "--nice", "20"], "-20..=19"),
            (&["pipe", "--rounds", "9", "--secs", "1"], "--secs"),
            (&["pipe", "--cpus", "3-1"], "3-1"),
            (&["requests", "--load", "0"], "1..=1000"),
            (&["frames", "--period-us", "0"], "1..=10000000"),
            (&["sing"], "sing"),
        ] {
            let Err(error) = parse(words) else {
                panic!("{words:?} was taken");
            };
            let said = error.to_string();
            assert!(said.contains(says), "{words:?}: {said}");
        }
    }
}
