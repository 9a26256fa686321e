// SPDX-License-Identifier: GPL-2.0-only
//! Owns the command line: options, ranges, help.

use crate::groups::{GroupTerms, WEIGHT_DEFAULT};
use crate::lock::{self, Recipe};
use crate::policy::WaiterPolicy;
use crate::rename::Rename;
use crate::topology::Topology;
use crate::weight::{NICE_MAX, NICE_MIN};
use anyhow::{Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Stage priority inversions and measure the inversion factor.
///
/// A low-priority task owns a lock of the kernel or of a program, a high-priority task waits for it, and hogs in between
/// want the owner's CPU. The factor is the waiter's wait divided by the CPU time that the owner still
/// needed when the wait began: 1 is the physical limit, the fair ideal is what the waiter would have
/// got had it run the critical section itself. Time of the wait that the owner slept is taken off. Only trials in which the inversion is shown to have
/// happened count.
///
/// Exit status: 0 if each scenario had a staged trial (or cannot be run here and was skipped), 2 if
/// one had none, 1 for errors, 130 after Ctrl-C.
#[derive(Debug, Parser)]
#[command(
    name = "inversion",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Locks to measure, comma-separated, or `all`; --list describes them [default: those that it does
    /// not mark as "not by default"]
    #[arg(long, value_name = "LOCK", value_delimiter = ',', value_parser = lock_names())]
    lock: Vec<String>,

    /// Topologies to measure, comma-separated [default: all]
    #[arg(long, value_name = "TOPOLOGY", value_delimiter = ',', value_enum)]
    topology: Vec<Topology>,

    /// Hogs per CPU [default: 1, or 2; --list says which]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub hogs: Option<u32>,

    /// Staged trials wanted for each scenario; up to three times as many are attempted
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub trials: u32,

    /// Nice value of the owner (in a chain: of all owners) during the wait
    #[arg(long, value_name = "NICE", default_value_t = 19, allow_negative_numbers = true,
          value_parser = nice_range())]
    pub owner_nice: i32,

    /// Nice value of the waiter; of no effect while it is SCHED_FIFO
    #[arg(long, value_name = "NICE", default_value_t = -10, allow_negative_numbers = true,
          value_parser = nice_range())]
    pub waiter_nice: i32,

    /// Scheduling policy of the waiter: SCHED_OTHER with its nice value, or SCHED_FIFO with a
    /// priority from 1 to 99 (50 if none is given)
    #[arg(long, value_name = "other|fifo[:PRIO]", default_value_t)]
    pub waiter_policy: WaiterPolicy,

    /// Nice value of the hogs
    #[arg(long, value_name = "NICE", default_value_t = 0, allow_negative_numbers = true,
          value_parser = nice_range())]
    pub hog_nice: i32,

    /// Put owners, waiter and hogs into cgroups of their own, and give the owners' this cpu.weight
    /// during the wait; the others' is 100 unless given. Needs root
    #[arg(long, value_name = "WEIGHT", value_parser = weight_range())]
    owner_weight: Option<u32>,

    /// Likewise, the cpu.weight of the waiter's cgroup
    #[arg(long, value_name = "WEIGHT", value_parser = weight_range())]
    waiter_weight: Option<u32>,

    /// Likewise, the cpu.weight of the cgroup of all hogs together
    #[arg(long, value_name = "WEIGHT", value_parser = weight_range())]
    hog_weight: Option<u32>,

    /// Likewise, the cpu.max of the owners' cgroup during the wait, in percent of one CPU in each
    /// 100 ms
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    owner_max: Option<u32>,

    /// CPU time in ms that the owner shall still need when the wait begins
    #[arg(long, value_name = "MS", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(10..=1000))]
    critical_ms: u64,

    /// Longest wait of one trial in seconds; a longer one is broken off and counted as timed out
    #[arg(long, value_name = "SECS", default_value_t = 120,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    max_wait_secs: u64,

    /// Write JSON to FILE, or to the standard output (and the table to the standard error)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub json: Option<PathBuf>,

    /// A name for this run, kept in the JSON and shown by --compare
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// List locks and topologies and exit
    #[arg(long)]
    pub list: bool,

    /// Join JSON files of the same scenarios, two or more, into one table and exit
    #[arg(long, num_args = 2.., value_names = ["BEFORE.json", "AFTER.json"], exclusive = true)]
    pub compare: Option<Vec<PathBuf>>,
}

/// Other measurements than of staged inversions.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure how long renames take while a background task of little weight renames as well, in the
    /// same file system, and hogs want the CPUs; beside the same when that background computes. Needs
    /// root, for cgroups
    Rename(Rename),
}

/// The name that stands for every lock.
const ALL: &str = "all";

fn lock_names() -> PossibleValuesParser {
    let names = lock::RECIPES.iter().map(|recipe| recipe.name);
    PossibleValuesParser::new(names.chain([ALL]))
}

fn nice_range() -> clap::builder::RangedI64ValueParser<i32> {
    clap::value_parser!(i32).range(i64::from(NICE_MIN)..=i64::from(NICE_MAX))
}

/// What cpu.weight takes.
fn weight_range() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000)
}

impl Cli {
    /// The cgroups asked for, if any.
    pub fn groups(&self) -> Option<GroupTerms> {
        let weights = [self.owner_weight, self.waiter_weight, self.hog_weight];
        let asked = self.owner_max.is_some() || weights.iter().any(Option::is_some);
        let [owner_weight, waiter_weight, hog_weight] =
            weights.map(|weight| weight.unwrap_or(WEIGHT_DEFAULT));
        asked.then_some(GroupTerms {
            owner_weight,
            waiter_weight,
            hog_weight,
            owner_max_percent: self.owner_max,
        })
    }

    /// The locks asked for, each once, in the order of the list.
    pub fn recipes(&self) -> Vec<&'static Recipe> {
        let named = |name: &str| self.lock.iter().any(|lock| lock == name);
        let wanted = |recipe: &Recipe| match self.lock.is_empty() {
            true => recipe.by_default,
            false => named(recipe.name) || named(ALL),
        };
        let all = lock::RECIPES.iter().copied();
        all.filter(|recipe| wanted(recipe)).collect()
    }

    /// The topologies asked for, each once, in the order of the list.
    pub fn topologies(&self) -> Vec<Topology> {
        let all = Topology::value_variants().iter().copied();
        all.filter(|one| self.topology.is_empty() || self.topology.contains(one))
            .collect()
    }

    pub fn critical(&self) -> Duration {
        Duration::from_millis(self.critical_ms)
    }

    pub fn max_wait(&self) -> Duration {
        Duration::from_secs(self.max_wait_secs)
    }

    /// What the parser cannot check: how options go together.
    pub fn check(&self) -> Result<()> {
        if let Some(groups) = self.groups() {
            // a nice value counts inside its cgroup only, and nobody else is in there
            ensure!(
                !self.waiter_policy.is_fair()
                    || groups.owner_max_percent.is_some()
                    || groups.waiter_weight >= groups.owner_weight,
                "no inversion: the waiter's cgroup (weight {}) has less than the owner's (weight {}); \
                 choose --waiter-weight at or above --owner-weight, or --owner-max",
                groups.waiter_weight,
                groups.owner_weight
            );
            return Ok(());
        }
        ensure!(
            !self.waiter_policy.is_fair() || self.waiter_nice <= self.owner_nice,
            "no inversion: the waiter (nice {}) has a lower priority than the owner (nice {}); \
             choose --waiter-nice at or below --owner-nice",
            self.waiter_nice,
            self.owner_nice
        );
        Ok(())
    }

    /// The lowest nice value that the program has to take.
    pub fn lowest_nice(&self) -> i32 {
        self.waiter_nice
            .min(self.owner_nice)
            .min(self.hog_nice)
            .min(0)
    }
}

/// The text of --list.
pub fn list() -> String {
    let mut text = String::from("locks:\n");
    for recipe in lock::RECIPES {
        let (name, hogs) = (recipe.name, recipe.default_hogs);
        let mark = match (recipe.donates, recipe.by_default) {
            (false, _) => "; no owner to lend to, not by default",
            (true, false) => "; not by default",
            (true, true) => "",
        };
        let summary = recipe.summary;
        text += &format!("  {name:<18}  {summary} (hogs per CPU: {hogs}{mark})\n");
    }
    text += "topologies:\n";
    for topology in Topology::value_variants() {
        let help = topology
            .to_possible_value()
            .and_then(|value| value.get_help().cloned());
        text += &format!("  {topology:<18}  {}\n", help.unwrap_or_default());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("inversion").chain(words.iter().copied()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() -> Result<()> {
        let cli = parse(&[])?;
        assert_eq!(
            cli.topologies(),
            [Topology::Same, Topology::Cross, Topology::Unpinned]
        );
        assert_eq!((cli.trials, cli.hogs), (5, None));
        assert_eq!(
            (cli.owner_nice, cli.waiter_nice, cli.hog_nice),
            (19, -10, 0)
        );
        assert_eq!(cli.lowest_nice(), -10);
        assert_eq!(cli.waiter_policy, WaiterPolicy::Other);
        assert!(cli.json.is_none());
        cli.check()
    }

    #[test]
    fn all_is_more_than_the_default() -> Result<()> {
        assert_eq!(
            parse(&["--lock", "all"])?.recipes().len(),
            lock::RECIPES.len()
        );
        let default = parse(&[])?.recipes();
        assert!(default.len() < lock::RECIPES.len());
        assert!(default.iter().all(|recipe| recipe.donates));
        Ok(())
    }

    #[test]
    fn lists_are_split_and_each_counts_once() -> Result<()> {
        let cli = parse(&[
            "--lock",
            "chain,f_pos_lock",
            "--lock",
            "chain",
            "--topology",
            "cross",
        ])?;
        let names: Vec<_> = cli.recipes().iter().map(|recipe| recipe.name).collect();
        assert_eq!(names, ["f_pos_lock", "chain"]);
        assert_eq!(cli.topologies(), [Topology::Cross]);
        Ok(())
    }

    #[test]
    fn json_may_go_to_the_standard_output() -> Result<()> {
        assert_eq!(parse(&["--json"])?.json, Some(PathBuf::from("-")));
        assert_eq!(parse(&["--json", "-"])?.json, Some(PathBuf::from("-")));
        assert_eq!(
            parse(&["--json", "a.json"])?.json,
            Some(PathBuf::from("a.json"))
        );
        Ok(())
    }

    #[test]
    fn bad_values_are_refused() {
        for words in [
            &["--lock", "spin"][..],
            &["--topology", "ring"],
            &["--hogs", "0"],
            &["--hogs", "65"],
            &["--trials", "0"],
            &["--owner-nice", "20"],
            &["--waiter-nice", "-21"],
            &["--hog-nice", "x"],
            &["--waiter-policy", "rr"],
            &["--waiter-policy", "fifo:100"],
            &["--critical-ms", "9"],
            &["--critical-ms", "1001"],
            &["--max-wait-secs", "0"],
            &["--owner-weight", "0"],
            &["--waiter-weight", "10001"],
            &["--owner-max", "0"],
            &["--compare", "one.json"],
            &["--compare", "a.json", "b.json", "--trials", "3"],
            &["--unknown"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn negative_nice_values_need_no_equals_sign() -> Result<()> {
        assert_eq!(parse(&["--waiter-nice", "-20"])?.waiter_nice, -20);
        Ok(())
    }

    #[test]
    fn a_waiter_below_the_owner_is_no_inversion() -> Result<()> {
        let cli = parse(&["--waiter-nice", "10", "--owner-nice", "5"])?;
        assert!(
            cli.check()
                .is_err_and(|error| error.to_string().contains("no inversion"))
        );
        let words = [
            "--waiter-nice",
            "10",
            "--owner-nice",
            "5",
            "--waiter-policy",
        ];
        parse(&[&words[..], &["fifo"]].concat())?.check()?;
        Ok(())
    }

    #[test]
    fn cgroups_are_made_only_if_asked_for() -> Result<()> {
        assert_eq!(parse(&[])?.groups(), None);
        let cli = parse(&["--owner-weight", "1", "--waiter-weight", "1000"])?;
        let groups = cli.groups().map(|groups| groups.to_string());
        assert_eq!(groups.as_deref(), Some("weights 1:1000:100"));
        cli.check()?;
        let lower = parse(&["--owner-weight", "200"])?;
        assert!(lower.check().is_err());
        parse(&["--owner-weight", "200", "--owner-max", "5"])?.check()
    }

    #[test]
    fn the_list_names_everything() {
        let text = list();
        let names = lock::RECIPES.iter().map(|recipe| recipe.name);
        for word in names.chain(["same", "cross", "unpinned"]) {
            assert!(text.contains(word), "{word} is missing in\n{text}");
        }
    }
}
