// SPDX-License-Identifier: GPL-2.0-only
//! The settings of the scheduler: defaults, then a configuration file, then the command line. The keys of
//! the file are the long flags of `cli`, and nothing else lists them: each entry becomes a flag, and clap
//! says whether that is right. Reads one file; changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::builder::StyledStr;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::cli::{ACTIONS, CONFIG, Opts};

/// Keys whose change takes effect while the scheduler runs. All else stands in constants of BPF, or
/// is made once at the start.
pub const AT_RUN_TIME: [&str; 3] = ["metrics", "observe", "verbose"];

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// The command line: or it asks for help.
    #[error("{0}")]
    CommandLine(#[from] clap::Error),
    /// The file.
    #[error("{}: {why}", file.display())]
    File {
        /// Its path.
        file: PathBuf,
        /// The key, and what is allowed.
        why: String,
    },
}

/// What holds, and where it came from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All flags.
    pub opts: Opts,
    /// The file that was read.
    pub file: Option<PathBuf>,
    args: Vec<OsString>,
    values: BTreeMap<String, Option<Value>>,
}

impl Settings {
    /// Of a command line, with the name of the program, and of the file that it names or of [`CONFIG`].
    ///
    /// # Errors
    /// The command line or the file is wrong.
    pub fn new(args: impl IntoIterator<Item = OsString>) -> Result<Self, Wrong> {
        let args: Vec<_> = args.into_iter().collect();
        let matches = Opts::command().try_get_matches_from(&args)?;
        let opts = Opts::from_arg_matches(&matches)?;
        let named = opts.config.clone();
        let wanted = named.as_deref().unwrap_or(Path::new(CONFIG));
        let text = match std::fs::read_to_string(wanted) {
            // what only asks something of a scheduler that runs needs no file
            _ if !opts.schedules() => None,
            Ok(text) => Some(text),
            Err(e) if e.kind() == ErrorKind::NotFound && named.is_none() => None,
            Err(e) => return Err(in_file(wanted, e.to_string())),
        };
        let Some(text) = text else {
            let values = values(&matches);
            return Ok(Self {
                opts,
                file: None,
                args,
                values,
            });
        };
        let flags = flags(&text, &matches).map_err(|why| in_file(wanted, why))?;
        let name = args.first().cloned();
        let rest = args.iter().skip(1).cloned();
        let words = name.into_iter().chain(flags.map(Into::into)).chain(rest);
        let merged = Opts::command().try_get_matches_from(words);
        // each flag is right by itself, and so is the command line: they do not go together
        let matches = merged.map_err(|e| in_file(wanted, reason(&e)))?;
        Ok(Self {
            opts: Opts::from_arg_matches(&matches)?,
            file: Some(wanted.to_owned()),
            args,
            values: values(&matches),
        })
    }

    /// The same command line, and the file as it is now.
    ///
    /// # Errors
    /// The file is wrong.
    pub fn again(&self) -> Result<Self, Wrong> {
        Self::new(self.args.iter().cloned())
    }

    /// The keys that have another value there.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<&str> {
        let keys = self.values.iter();
        let keys = keys.filter(|(key, value)| other.values.get(*key) != Some(value));
        keys.map(|(key, _)| key.as_str()).collect()
    }

    /// Take what may change at run time from there; returns the other keys that have changed.
    pub fn take_from<'a>(&mut self, newer: &'a Self) -> Vec<&'a str> {
        let changed = newer.changed(self);
        let (now, later): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .partition(|key| AT_RUN_TIME.contains(key));
        for key in now {
            let value = newer.values.get(key).cloned().flatten();
            self.values.insert(key.to_owned(), value);
        }
        self.opts.metrics = newer.opts.metrics;
        self.opts.observe = newer.opts.observe;
        self.opts.verbose = newer.opts.verbose;
        later
    }

    /// As a configuration file that says the same.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# scx_proxy, see scx_proxy(8); reload: SIGHUP\n");
        for arg in Opts::command().get_arguments().filter(|arg| is_key(arg)) {
            let about = first_sentence(arg.get_help());
            let key = arg.get_long().unwrap_or_default();
            let _ = write!(text, "\n# {about}\n");
            let _ = match self.values.get(key) {
                Some(Some(value)) => writeln!(text, "{key} = {value}"),
                _ => writeln!(text, "# {key} ="),
            };
        }
        text
    }
}

fn in_file(file: &Path, why: String) -> Wrong {
    Wrong::File {
        file: file.to_owned(),
        why,
    }
}

/// Whether a flag is a setting, which the file may have, and not a question or an order.
fn is_key(arg: &Arg) -> bool {
    let is_setting = arg.get_help_heading() != Some(ACTIONS);
    is_setting && arg.get_long().is_some_and(|long| long != "help")
}

/// The values of all settings, by key.
fn values(matches: &ArgMatches) -> BTreeMap<String, Option<Value>> {
    let command = Opts::command();
    let keys = command.get_arguments().filter(|arg| is_key(arg));
    let values = keys.filter_map(|arg| Some((arg.get_long()?.to_owned(), value(arg, matches))));
    values.collect()
}

fn value(arg: &Arg, matches: &ArgMatches) -> Option<Value> {
    let id = arg.get_id().as_str();
    match arg.get_action() {
        ArgAction::SetTrue => Some(Value::Boolean(matches.get_flag(id))),
        ArgAction::Count => Some(Value::Integer(matches.get_count(id).into())),
        _ => {
            let word = matches.get_raw(id)?.next_back()?.to_string_lossy();
            let integer = word.parse().map(Value::Integer).ok();
            let float = || word.parse().map(Value::Float).ok();
            let boolean = || word.parse().map(Value::Boolean).ok();
            let text = || Value::String(word.clone().into_owned());
            Some(integer.or_else(float).or_else(boolean).unwrap_or_else(text))
        }
    }
}

/// What the file says, as flags; without those that the command line has.
fn flags(text: &str, given: &ArgMatches) -> Result<std::vec::IntoIter<String>, String> {
    let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let command = Opts::command();
    let mut all = Vec::new();
    for (key, value) in &table {
        let mut args = command.get_arguments().filter(|arg| is_key(arg));
        let Some(arg) = args.find(|arg| arg.get_long() == Some(key)) else {
            return Err(unknown(key, &command));
        };
        let flags = of_entry(arg, key, value).map_err(|why| format!("{key} = {value}: {why}"))?;
        if given.value_source(arg.get_id().as_str()) != Some(ValueSource::CommandLine) {
            all.extend(flags);
        }
    }
    Ok(all.into_iter())
}

fn unknown(key: &str, command: &Command) -> String {
    let keys = command.get_arguments().filter(|arg| is_key(arg));
    let keys: Vec<_> = keys.filter_map(Arg::get_long).collect();
    match command
        .get_arguments()
        .any(|arg| arg.get_long() == Some(key))
    {
        true => format!(
            "{key}: only for the command line; a file may have {}",
            keys.join(", ")
        ),
        false => format!("{key}: no such key; known are {}", keys.join(", ")),
    }
}

/// One entry of the file as flags, tried.
fn of_entry(arg: &Arg, key: &str, value: &Value) -> Result<Vec<String>, String> {
    let takes_none = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
    let flags = match (arg.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(true)) => vec![format!("--{key}")],
        (ArgAction::SetTrue, Value::Boolean(false)) => vec![],
        (ArgAction::SetTrue, _) => return Err("must be true or false".into()),
        (ArgAction::Count, Value::Integer(times @ 0..=9)) => {
            (0..*times).map(|_| format!("--{key}")).collect()
        }
        (ArgAction::Count, _) => return Err("must be in 0..=9".into()),
        (_, Value::Boolean(true)) if takes_none => vec![format!("--{key}")],
        (_, Value::Boolean(false)) if takes_none => vec![],
        (_, Value::String(word)) => vec![format!("--{key}={word}")],
        (_, Value::Integer(_) | Value::Float(_) | Value::Boolean(_)) => {
            vec![format!("--{key}={value}")]
        }
        _ => return Err("must be one value".into()),
    };
    match tried(&flags) {
        Ok(()) => Ok(flags),
        Err(why) => Err(allowed(arg, key).map_or(why, |allowed| format!("must be {allowed}"))),
    }
}

fn tried(flags: &[String]) -> Result<(), String> {
    let words = ["scx_proxy"]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    let matches = Opts::command().try_get_matches_from(words);
    matches.map(|_| ()).map_err(|e| reason(&e))
}

/// Which values a flag takes, in the words of its parser: a parser of numbers says so when it gets one that
/// is beyond all ranges.
fn allowed(arg: &Arg, key: &str) -> Option<String> {
    let names = arg.get_possible_values();
    if !names.is_empty() {
        let names: Vec<_> = names.iter().map(|name| name.get_name()).collect();
        return Some(format!("one of {}", names.join(", ")));
    }
    [u64::MAX, u32::MAX.into()].into_iter().find_map(|beyond| {
        let why = tried(&[format!("--{key}={beyond}")]).err()?;
        let (_, allowed) = why.rsplit_once("not ")?;
        why.contains("..").then(|| allowed.to_owned())
    })
}

/// What clap says is wrong, without the advice that is about command lines.
fn reason(error: &clap::Error) -> String {
    let said = error.render().to_string();
    let line = said.lines().next().unwrap_or_default();
    let line = line.trim_start_matches("error: ");
    // invalid value '...' for '--flag <VALUE>': why
    let why = line
        .strip_prefix("invalid value ")
        .and_then(|rest| rest.rsplit_once("': "));
    why.map_or(line, |(_, why)| why).to_owned()
}

fn first_sentence(help: Option<&StyledStr>) -> String {
    let help = help.map(ToString::to_string).unwrap_or_default();
    help.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings of a command line and a file.
    fn settings(file: &str, args: &[&str]) -> Result<Settings, Wrong> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NR: AtomicU32 = AtomicU32::new(0);
        let nr = NR.fetch_add(1, Ordering::Relaxed);
        let name = format!("scx_proxy-config-{}-{nr}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, file).expect("written");
        let own = ["scx_proxy", "--config"].map(OsString::from);
        let own = own.into_iter().chain([path.clone().into_os_string()]);
        let settings = Settings::new(own.chain(args.iter().map(OsString::from)));
        std::fs::remove_file(path).expect("removed");
        settings
    }

    fn refusal(file: &str, args: &[&str]) -> String {
        let refused = settings(file, args);
        refused.expect_err("refused").to_string()
    }

    #[test]
    fn the_file_goes_before_defaults_and_the_command_line_before_the_file() {
        let file = "slice-us = 5000\nlag-us = 1000\nobserve = true\nverbose = 2\nlocks = '-rwsem'\nstats = 0.5";
        let opts = settings(file, &["-l", "700"]).expect("good").opts;
        assert_eq!(
            (opts.slice_us, opts.lag_us, opts.balance_us),
            (5000, 700, 20_000)
        );
        assert!(opts.observe && !opts.no_agent);
        assert_eq!((opts.verbose, opts.stats), (2, Some(0.5)));
        assert_eq!(opts.locks, "-rwsem".parse().expect("known"));
    }

    #[test]
    fn a_wrong_file_is_told_by_file_key_and_what_is_allowed() {
        for (file, says) in [
            (
                "slice-us = 99",
                ".toml: slice-us = 99: must be in 100..=100000",
            ),
            (
                "slice-us = 'soon'",
                "slice-us = 'soon': must be in 100..=100000",
            ),
            ("slice-us = -1", "slice-us = -1: must be in 100..=100000"),
            ("hops-max = true", "hops-max = true: must be in 1..=16"),
            ("events-kib = 3", "must be a power of two in 4..=65536"),
            ("stats = 0", "stats = 0: must be in 0.01..=86400"),
            ("return = 'away'", "must be one of auto, home, owner"),
            (
                "locks = 'spinlock'",
                "no lock type 'spinlock'; known are mutex",
            ),
            ("observe = 1", "observe = 1: must be true or false"),
            ("verbose = true", "verbose = true: must be in 0..=9"),
            (
                "metrics = 'here'",
                "metrics = \"here\": invalid socket address",
            ),
            (
                "slice_us = 5000",
                "slice_us: no such key; known are slice-us",
            ),
            ("slice-us = [1]", "must be one value"),
            ("[slice-us]", "must be one value"),
            ("monitor = 1", "monitor: only for the command line"),
            ("config = '/x'", "config: only for the command line"),
            ("slice-us = 1\nslice-us = 2", "duplicate key"),
            (
                "no-agent = true\nprint-events = true",
                "cannot be used with",
            ),
        ] {
            let said = refusal(file, &[]);
            assert!(
                said.replace('"', "'").contains(&says.replace('"', "'")),
                "{file}: {said}"
            );
        }
        assert!(refusal("no-agent = true", &["--print-events"]).contains("cannot be used with"));
        let missing = Settings::new(["scx_proxy", "--config", "/no/such"].map(OsString::from));
        assert!(
            missing
                .expect_err("refused")
                .to_string()
                .starts_with("/no/such: ")
        );
    }

    #[test]
    fn what_is_printed_can_be_fed_back() {
        let file = "locks = 'all'\nreturn = 'home'\nmetrics = '127.0.0.1:1'\nstats = 2.5\nverbose = 1\n\
                    relaxed-maps = true\nno-agent = true\nkconfig = '/c'";
        let first = settings(file, &["--slice-us", "4000"]).expect("good");
        let second = settings(&first.to_toml(), &[]).expect("good");
        assert_eq!(first.values, second.values);
        assert_eq!(first.to_toml(), second.to_toml());
        assert_eq!(second.opts.slice_us, 4000);
        assert!(first.to_toml().contains("\nreturn = \"home\"\n"));
    }

    #[test]
    fn every_setting_has_a_key_and_no_order_has() {
        let text = settings("", &[]).expect("good").to_toml();
        for arg in Opts::command()
            .get_arguments()
            .filter(|arg| arg.get_id() != "help")
        {
            let long = arg.get_long().expect("long");
            let named =
                text.contains(&format!("\n{long} =")) || text.contains(&format!("\n# {long} ="));
            let order =
                ["config", "print-config", "monitor", "help-stats", "version"].contains(&long);
            assert_eq!(named, !order, "{long}");
        }
        for key in AT_RUN_TIME {
            assert!(text.contains(&format!("{key} =")), "{key}");
        }
    }

    #[test]
    fn what_may_change_at_run_time_is_taken_and_the_rest_is_told() {
        let mut now = settings("slice-us = 5000", &[]).expect("good");
        let newer = settings(
            "slice-us = 6000\nobserve = true\nverbose = 1\nmetrics = true",
            &[],
        );
        let newer = newer.expect("good");
        assert_eq!(now.take_from(&newer), ["slice-us"]);
        assert_eq!(now.opts.slice_us, 5000);
        assert!(now.opts.observe && now.opts.verbose == 1 && now.opts.metrics.is_some());
        // told each time, until it holds
        assert_eq!(now.take_from(&newer), ["slice-us"]);
        let back = settings(
            "slice-us = 5000\nobserve = true\nverbose = 1\nmetrics = true",
            &[],
        );
        assert!(back.expect("good").changed(&now).is_empty());
    }

    #[test]
    fn questions_need_no_file() {
        let broken = |args: &[&str]| settings("no-such-key = 1", args).map(|_| ());
        for args in [&["--version"][..], &["--help-stats"], &["--monitor", "1"]] {
            assert!(broken(args).is_ok(), "{args:?}");
        }
        assert!(broken(&[]).is_err());
    }
}
