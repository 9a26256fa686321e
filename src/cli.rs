// SPDX-License-Identifier: GPL-2.0-only
//! The command line: every flag, its unit and its range. No side effects.

mod big_cpus;
mod size;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use scx_utils::libbpf_clap_opts::LibbpfOpts;

pub use big_cpus::BigCpus;
pub use size::parse_size;

use crate::abi;
use crate::locks::LockSet;

/// Where a running scheduler listens.
pub const SOCKET: &str = "/var/run/scx/root/stats";
/// Where `observe --beside` does. Not the same: that one is whoever's who schedules.
pub const BESIDE: &str = "/var/run/scx/root/beside";
/// Where `--metrics` listens if no address is given.
pub const METRICS_ADDR: &str = "127.0.0.1:9839";
/// The configuration file that is read if there is one and no other is named.
pub const CONFIG: &str = "/etc/scx_proxy.toml";
/// Flags below this heading are for the command line only: all others are settings, and so keys of the
/// configuration file.
pub const ACTIONS: &str = "Command Line Only";

/// A sched_ext scheduler with proxy execution.
///
/// While a task waits for a lock, the lock's owner runs in the waiter's scheduling
/// context: with the waiter's weight, at the waiter's place in the queue, and at the
/// waiter's expense. A low-priority task that owns a lock then no longer delays a
/// high-priority task.
///
/// Needs root and a kernel with sched_ext. When it exits or dies, the kernel's
/// default scheduler takes over.
#[derive(Debug, Clone, Parser)]
#[command(name = "scx_proxy", disable_version_flag = true)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Opts {
    /// Another action than scheduling.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Time a task runs before the next pick, in microseconds.
    ///
    /// The kernel checks slices in its tick: on a 250 Hz kernel, less than
    /// 4000 has little effect.
    #[arg(short = 's', long, default_value_t = 3000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(100..=100_000))]
    pub slice_us: u64,

    /// Lag: how far behind its CPU's clock a waking task may start, in microseconds
    /// of virtual time. More favours tasks that sleep a lot.
    #[arg(short = 'l', long, default_value_t = 3000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub lag_us: u64,

    /// Lead that a waking nice-0 task needs to preempt a running task, in
    /// microseconds of virtual time. More favours throughput over latency.
    ///
    /// Heavier tasks need less, in proportion to their weight.
    #[arg(short = 'g', long, default_value_t = 3000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub wakeup_gran_us: u64,

    /// Time that a task that has slept runs before a waking task may preempt it, in
    /// microseconds.
    ///
    /// A task that wakes earlier waits for the next tick at most. Much less than the
    /// default makes every message between two tasks a context switch.
    #[arg(long, default_value_t = 700, value_name = "US",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub protect_us: u64,

    /// Leave every CPU at its full speed.
    ///
    /// Without it, the scheduler asks the schedutil governor for the speed that the tasks
    /// of each CPU need. uclamp is honoured. Other governors are not affected.
    #[arg(long)]
    pub no_cpufreq: bool,

    /// CPUs that heavy tasks prefer: a list as in `0-3,8`, `auto` for those whose capacity
    /// says so, or `none`.
    ///
    /// A task that used more than half of a CPU in the last second wakes on an idle big core if there is
    /// one, and leaves a small one for it when its slice ends.
    #[arg(long, default_value = "auto", value_name = "CPUS")]
    pub big_cpus: BigCpus,

    /// Least time between two scans of a busy CPU for tasks that get less than
    /// their share on another CPU, in microseconds.
    #[arg(short = 'b', long, default_value_t = 20_000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub balance_us: u64,

    /// Upper bound of the wait on a run queue that a low weight can cause, as
    /// estimated when the task is queued, in milliseconds.
    ///
    /// The kernel ejects a scheduler that lets a runnable task wait for 30 s, or for 21 s
    /// inside an RCU read-side critical section.
    #[arg(long, default_value_t = 2000, value_name = "MS",
          value_parser = clap::value_parser!(u64).range(10..=15_000))]
    pub starve_ms: u64,

    /// Most locks that a walk from a donor to the end of its chain follows.
    #[arg(long, default_value_t = abi::HOPS_LIMIT, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(abi::HOPS_LIMIT)))]
    pub hops_max: u32,

    /// CPU of a donor that wakes while no CPU is idle. `auto` decides by what runs
    /// there, by how warm the donor's caches still are at home, and by what the agent
    /// measured. `home` is always the CPU that the donor blocked on, `owner` always the
    /// CPU of its lock's owner.
    #[arg(long = "return", default_value = "auto", value_name = "WHERE")]
    pub return_policy: ReturnPolicy,

    /// Wait after which a donor's caches count as cold at home, in microseconds.
    #[arg(long, default_value_t = 5000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub return_cold_us: u64,

    /// What warm caches at home are worth, compared with a CPU that shares no cache
    /// with it, in microseconds of virtual time.
    #[arg(long, default_value_t = 1000, value_name = "US",
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub return_margin_us: u64,

    /// Types of locks whose owners are donated to: mutex, rwsem, rtmutex, pthread,
    /// binder, ntsync and futex; or all, default, none.
    ///
    /// `+x` and `-x` change the default, as in `--locks -rwsem`. Types that this kernel
    /// lacks are left out: `scx_proxy doctor` says which, and why.
    #[arg(long, default_value_t, value_name = "LIST", allow_hyphen_values = true)]
    pub locks: LockSet,

    /// Run without the agent: no hints for chains beyond --hops-max, for
    /// deadlocks and for return migration.
    #[arg(long)]
    pub no_agent: bool,

    /// Print each event that the agent reads, one line per event: which task blocks on
    /// which lock, which task donates to which one, where donors go.
    #[arg(long, conflicts_with = "no_agent")]
    pub print_events: bool,

    /// Room for events that the agent has not read yet, in KiB; a power of two.
    #[arg(long, default_value_t = 512, value_name = "KIB", value_parser = parse_ring_kib)]
    pub events_kib: u32,

    /// Follow every wait, but never donate: the same scheduler without proxy
    /// execution, for comparison.
    ///
    /// `scx_proxy donate` and `scx_proxy observe` switch a running scheduler.
    #[arg(long, alias = "no-donate")]
    pub observe: bool,

    /// Follow mutexes through lock:contention_begin even where the kernel keeps
    /// task->blocked_on (6.17 and later).
    #[arg(long)]
    pub tracepoint: bool,

    /// Print stats every SECS seconds while the scheduler runs.
    #[arg(long, value_name = "SECS", value_parser = parse_interval_secs)]
    pub stats: Option<f64>,

    /// Print the stats of a running scx_proxy every SECS seconds; load nothing.
    #[arg(long, value_name = "SECS", value_parser = parse_interval_secs, help_heading = ACTIONS)]
    pub monitor: Option<f64>,

    /// Serve metrics in the OpenMetrics format at http://ADDR/metrics: this
    /// machine only, unless ADDR is another of its addresses.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = METRICS_ADDR)]
    pub metrics: Option<SocketAddr>,

    /// Name programs in the labels of metrics, as in `pthread firefox+0x1a2b`.
    ///
    /// Without it the class of a lock of a program is its type. Cgroups are named in either case.
    #[arg(long)]
    pub metrics_names: bool,

    /// Describe each statistic and exit.
    #[arg(long, help_heading = ACTIONS)]
    pub help_stats: bool,

    /// Bytes kept for the kernel's debug dump on exit; 0: the kernel's default.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub exit_dump_len: u32,

    /// Say more; twice: libbpf's debug messages too.
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Read settings from FILE. Its keys are the long flags without the leading dashes. The
    /// command line takes precedence.
    ///
    /// Without this flag, /etc/scx_proxy.toml is read if it is there. SIGHUP has it read again.
    #[arg(long, value_name = "FILE", help_heading = ACTIONS)]
    pub config: Option<PathBuf>,

    /// Print the settings that would hold, as a configuration file, and exit.
    #[arg(long, help_heading = ACTIONS)]
    pub print_config: bool,

    /// Print the version and exit.
    #[arg(short = 'V', long, help_heading = ACTIONS)]
    pub version: bool,

    /// Options handed to libbpf.
    #[command(flatten, next_help_heading = "Libbpf Options")]
    pub libbpf: LibbpfOpts,
}

impl Opts {
    /// Whether these are flags of a scheduler, and not of a question or an order.
    #[must_use]
    pub fn schedules(&self) -> bool {
        self.command.is_none() && !self.version && !self.help_stats && self.monitor.is_none()
    }
}

/// Actions beside scheduling.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Say whether this kernel can run the scheduler, which locks it would follow and
    /// how, and why not the others; load nothing.
    ///
    /// Also says which probes would be attached, which options of the kernel's
    /// configuration matter, which rights this process has, and what is loaded now. It
    /// reports what it cannot read. The last line is the verdict.
    ///
    /// Exits with 0 if the scheduler can be loaded and follows at least one type of lock,
    /// with 1 otherwise. With --verify: with 0 if the kernel accepts all programs.
    Doctor(DoctorOpts),

    /// Make the running scheduler donate, from now on.
    Donate(SwitchOpts),

    /// Make the running scheduler only observe: follow every wait, donate nothing.
    Observe(ObserveOpts),
    /// Print a man page, as roff: of scx_proxy, or of one of its subcommands.
    Man {
        /// The subcommand; without it, scx_proxy itself.
        subcommand: Option<String>,
    },

    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },

    /// Print what this kernel has that bears on locks, for tests/fixtures/kernels.
    #[command(hide = true)]
    Facts,

    /// The process that the scheduler starts for clients that watch.
    #[command(hide = true)]
    Watcher(WatcherOpts),

    /// Record the events of a running scx_proxy until Ctrl-C: waits, their owners,
    /// donations, migrations.
    Record(RecordOpts),

    /// Collect what a bug report needs in one archive: version, doctor, flags, logs,
    /// counters and a short recording.
    ///
    /// Without --names no program and no cgroup is named in it. Needs root to be
    /// complete; the archive says what could not be read. Read it before you publish it: it holds the
    /// kernel's command line and /etc/scx_proxy.toml.
    Bugreport(BugreportOpts),

    /// Show a recording: as tables, as text, as JSON, or as a trace for Perfetto.
    Replay(ReplayOpts),

    /// Serve the metrics of a running scx_proxy in the OpenMetrics format, until
    /// Ctrl-C.
    Metrics(MetricsOpts),

    /// Watch a running scx_proxy: which task waits for which lock, for how long, and
    /// which owner runs in its place. `?` shows the keys, `q` quits.
    Top(TopOpts),
}

/// Flags of the process that `crate::watcher` is; the scheduler sets them.
#[derive(Debug, Clone, Args)]
pub struct WatcherOpts {
    /// Process of the scheduler.
    #[arg(long, hide = true)]
    pub parent: u32,

    /// Socket to make.
    #[arg(long, hide = true)]
    pub socket: PathBuf,

    /// Tasks have other numbers in /proc than the kernel's own.
    #[arg(long, hide = true)]
    pub no_proc: bool,
}

/// Flags of `scx_proxy record`.
#[derive(Debug, Clone, Args)]
pub struct RecordOpts {
    /// File to write.
    pub file: PathBuf,

    /// Overwrite FILE if it exists.
    #[arg(long)]
    pub force: bool,

    /// Stop after this time, in seconds.
    #[arg(long, value_name = "SECS", value_parser = parse_interval_secs)]
    pub seconds: Option<f64>,

    /// Largest size of the file; beyond it, the newest events overwrite the oldest. The
    /// number may end in K, M, G or T.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size)]
    pub max_size: u64,

    /// How long to wait for a scheduler that has gone, in seconds: it is loaded again when
    /// a CPU goes on or off line. 0: end with it.
    #[arg(long, value_name = "SECS", default_value_t = 60.0, value_parser = parse_wait_secs)]
    pub wait: f64,

    /// Leave out the names of tasks, programs and cgroups; those of the kernel's functions and
    /// locks stay.
    #[arg(long)]
    pub no_names: bool,

    /// Socket of the scheduler.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Flags of `scx_proxy bugreport`.
#[derive(Debug, Clone, Args)]
pub struct BugreportOpts {
    /// File to write, a .tar.gz.
    pub file: PathBuf,

    /// Overwrite FILE if there is one.
    #[arg(long)]
    pub force: bool,

    /// Keep the names of tasks, programs and cgroups.
    #[arg(long)]
    pub names: bool,

    /// How long to record, in seconds; Ctrl-C ends that earlier, and the report is complete.
    #[arg(long, value_name = "SECS", default_value_t = 5.0, value_parser = parse_interval_secs)]
    pub seconds: f64,

    /// Where the scheduler listens.
    #[arg(long, value_name = "SOCKET", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Flags of `scx_proxy replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayOpts {
    /// Recording to read.
    pub file: PathBuf,

    /// Print one JSON object per event, one per line.
    #[arg(long, group = "form")]
    pub json: bool,

    /// Print events as --print-events does.
    #[arg(long, group = "form")]
    pub text: bool,

    /// Write a trace that Perfetto opens: locks and tasks as tracks, donations
    /// as arrows.
    #[arg(long, value_name = "OUT", group = "form")]
    pub perfetto: Option<PathBuf>,

    /// Print tables: waits by class of lock, by task, by pair of cgroups. This is the
    /// default.
    #[arg(long, group = "form")]
    pub summary: bool,

    /// Play it in the terminal, as `scx_proxy top` shows a running scheduler.
    #[arg(long, group = "form")]
    pub top: bool,

    /// With --top: recorded seconds per second.
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = parse_speed)]
    pub speed: f64,

    /// Leave out what happened before, in seconds since the recording began.
    #[arg(long, value_name = "SECS", value_parser = parse_offset_secs)]
    pub from: Option<f64>,

    /// Leave out what happened after, likewise.
    #[arg(long, value_name = "SECS", value_parser = parse_offset_secs)]
    pub to: Option<f64>,
}

/// Flags of `scx_proxy metrics`.
#[derive(Debug, Clone, Args)]
pub struct MetricsOpts {
    /// Address to listen on.
    #[arg(value_name = "ADDR", default_value = METRICS_ADDR)]
    pub addr: SocketAddr,

    /// Name programs in labels, as in `pthread firefox+0x1a2b`.
    ///
    /// Without it the class of a lock of a program is its type. Cgroups are named in either case.
    #[arg(long)]
    pub metrics_names: bool,

    /// Started by the scheduler with this process id: the standard input listens already.
    #[arg(long, hide = true)]
    pub parent: Option<u32>,

    /// Socket of the scheduler.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Flags of `scx_proxy top`.
#[derive(Debug, Clone, Args)]
pub struct TopOpts {
    /// Socket that the scheduler listens on.
    #[arg(long, default_value = SOCKET, value_name = "PATH")]
    pub socket: PathBuf,

    /// Seconds between two reads.
    #[arg(long, default_value_t = 1.0, value_name = "SECS", value_parser = parse_look_secs)]
    pub interval: f64,

    /// Print one view as text and exit; also if stdout is no terminal.
    #[arg(long)]
    pub once: bool,

    /// Print that view as one JSON object.
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Flags of `scx_proxy doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorOpts {
    /// Types of locks to follow, as for the scheduler itself.
    #[arg(long, default_value_t, value_name = "LIST", allow_hyphen_values = true)]
    pub locks: LockSet,

    /// Print one JSON object instead of text.
    #[arg(long)]
    pub json: bool,

    /// Have the kernel verify all programs of the scheduler instead, and print how many
    /// instructions it processed; attach nothing. Needs root.
    #[arg(long)]
    pub verify: bool,

    /// With --verify: as for a machine with N possible CPUs.
    #[arg(long, hide = true, value_name = "N", requires = "verify",
          value_parser = clap::value_parser!(u32).range(1..=512))]
    pub verify_cpus: Option<u32>,
}

/// Flags of `scx_proxy observe`.
#[derive(Debug, Clone, Args)]
pub struct ObserveOpts {
    /// The stats socket of that scheduler.
    #[arg(long, default_value = SOCKET, value_name = "PATH", conflicts_with = "beside")]
    pub socket: PathBuf,

    /// Watch the machine without scheduling it, until Ctrl-C; then print which tasks held up which.
    ///
    /// The machine keeps its scheduler. Needs root and Linux 6.1 or newer with BTF; sched_ext is not
    /// needed. `scx_proxy top`, `record` and `metrics` show it meanwhile.
    #[arg(long)]
    pub beside: bool,

    /// With --beside: stop after this time, in seconds.
    #[arg(long, value_name = "SECS", requires = "beside", value_parser = parse_interval_secs)]
    pub seconds: Option<f64>,

    /// With --beside: print the summary as one JSON object.
    #[arg(long, requires = "beside")]
    pub json: bool,

    /// With --beside: sample one in N waits, at random. Chains end where a wait was left out.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "beside",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sample: u32,

    /// With --beside: room for events that have not been read yet, in KiB; a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 512, requires = "beside",
          value_parser = parse_ring_kib)]
    pub events_kib: u32,
}

/// Flags of `scx_proxy donate`.
#[derive(Debug, Clone, Args)]
pub struct SwitchOpts {
    /// The stats socket of that scheduler.
    #[arg(long, default_value = SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
}

/// Where a donor returns to, `--return`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReturnPolicy {
    /// By rule, improved by measurement.
    Auto,
    /// The CPU that it blocked on.
    Home,
    /// The CPU of its lock's owner.
    Owner,
}

/// The kernel wants a ring of a power of two, and of whole pages.
fn parse_ring_kib(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(kib) if kib.is_power_of_two() && (4..=65_536).contains(&kib) => Ok(kib),
        Ok(_) => Err("not a power of two in 4..=65536".into()),
        Err(_) => Err("not a number".into()),
    }
}

fn parse_interval_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.01..=86_400.0).contains(&secs) => Ok(secs),
        Ok(_) => Err("not in 0.01..=86400".into()),
        Err(_) => Err("not a number of seconds".into()),
    }
}

fn parse_offset_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.0..=1e9).contains(&secs) => Ok(secs),
        _ => Err("not a number of seconds since the beginning".into()),
    }
}

fn parse_wait_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.0..=86_400.0).contains(&secs) => Ok(secs),
        _ => Err("not a number of seconds in 0..=86400".into()),
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(speed),
        _ => Err("not in 0.01..=1000".into()),
    }
}

fn parse_look_secs(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(secs) if (0.1..=60.0).contains(&secs) => Ok(secs),
        Ok(_) => Err("not in 0.1..=60".into()),
        Err(_) => Err("not a number of seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definition_is_consistent() {
        Opts::command().debug_assert();
    }

    #[test]
    fn out_of_range_is_refused() {
        for args in [
            ["--slice-us", "99"],
            ["--slice-us", "100001"],
            ["--hops-max", "0"],
            ["--hops-max", "17"],
            ["--starve-ms", "15001"],
            ["--events-kib", "3"],
            ["--events-kib", "2"],
            ["--return", "away"],
            ["--return-cold-us", "1000001"],
            ["--stats", "0"],
            ["--stats", "-1"],
            ["--monitor", "NaN"],
            ["--locks", "mutexes"],
            ["--locks", "semaphore"],
        ] {
            let argv = ["scx_proxy"].into_iter().chain(args);
            assert!(Opts::try_parse_from(argv).is_err(), "{args:?}");
        }
    }

    #[test]
    fn the_verifier_is_asked_within_reason() {
        let parse = |args: &[&str]| {
            Opts::try_parse_from(["scx_proxy", "doctor"].iter().chain(args)).is_ok()
        };
        assert!(parse(&["--verify"]) && parse(&["--verify", "--verify-cpus", "512"]));
        for cpus in ["0", "513"] {
            assert!(!parse(&["--verify", "--verify-cpus", cpus]), "{cpus}");
        }
        assert!(!parse(&["--verify-cpus", "4"]));
    }

    #[test]
    fn top_is_asked_for_within_reason() {
        let parse = |args: &[&str]| Opts::try_parse_from(["scx_proxy", "top"].iter().chain(args));
        let Some(Command::Top(opts)) = parse(&[]).expect("parses").command else {
            panic!("no top");
        };
        assert_eq!((opts.socket, opts.interval), (SOCKET.into(), 1.0));
        assert!(parse(&["--once", "--json"]).is_ok());
        for args in [
            &["--json"][..],
            &["--interval", "0.09"],
            &["--interval", "61"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn every_flag_has_help() {
        let command = Opts::command();
        let subcommands = command.get_subcommands();
        for arg in subcommands
            .flat_map(|sub| sub.get_arguments())
            .chain(command.get_arguments())
        {
            let described = arg.get_help().is_some() || arg.get_long_help().is_some();
            assert!(described, "--{} has no help", arg.get_id());
        }
    }

    #[test]
    fn a_list_of_locks_may_begin_with_a_sign() {
        for list in ["-rwsem", "+pthread", "mutex,rwsem"] {
            let set: LockSet = list.parse().expect("known");
            let opts = Opts::try_parse_from(["scx_proxy", "--locks", list]).expect("parses");
            assert_eq!(opts.locks, set);
            let opts =
                Opts::try_parse_from(["scx_proxy", "doctor", "--locks", list]).expect("parses");
            let Some(Command::Doctor(opts)) = opts.command else {
                panic!("no doctor");
            };
            assert_eq!(opts.locks, set);
        }
    }

    /// Each stands in three places, of which one was once changed by mistake.
    #[cfg(feature = "model")]
    #[test]
    fn defaults_are_those_of_bpf_and_of_the_model() {
        let opts = Opts::parse_from(["scx_proxy"]);
        let bpf = include_str!("../bpf/main.bpf.c");
        let of_bpf = |name: &str| -> u64 {
            let field = bpf.split(&format!(".{name} = ")).nth(1).expect(name);
            let digits: String = field.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().expect(name)
        };
        let model = crate::model::policy::Config::new(1);
        for (name, flag_us, model_ns) in [
            ("slice_ns", opts.slice_us, Some(model.slice_ns)),
            ("lag_ns", opts.lag_us, Some(model.lag_ns)),
            (
                "wakeup_gran_ns",
                opts.wakeup_gran_us,
                Some(model.wakeup_gran_ns),
            ),
            ("protect_ns", opts.protect_us, Some(model.protect_ns)),
            ("balance_ns", opts.balance_us, Some(model.balance_ns)),
            ("starve_ns", opts.starve_ms * 1000, Some(model.starve_ns)),
            ("return_cold_ns", opts.return_cold_us, None),
            ("return_margin_ns", opts.return_margin_us, None),
        ] {
            assert_eq!(of_bpf(name), flag_us * 1000, "{name}");
            assert_eq!(model_ns.unwrap_or(flag_us * 1000), flag_us * 1000, "{name}");
        }
        assert_eq!(model.hops_max, opts.hops_max);
    }
}
