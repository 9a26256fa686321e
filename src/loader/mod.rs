// SPDX-License-Identifier: GPL-2.0-only
//! Brings the BPF scheduler into the kernel, keeps it there, reports its exit.
//! Only this module touches the skeleton.

mod cpus;
mod ejected;
pub mod programs;
pub(crate) mod refused;
mod topology;
pub mod verify;

use std::fs::Permissions;
use std::mem::MaybeUninit;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, TryRecvError};
use libbpf_rs::libbpf_sys::{bpf_object_open_opts, size_t};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::OpenSkel;
use libbpf_rs::{MapCore, MapFlags, MapHandle, OpenObject, PrintLevel};
use log::{debug, info, warn};
use scx_stats::prelude::*;
use scx_utils::{
    UserExitInfo, compat, scx_ops_attach, scx_ops_load, scx_ops_open, uei_exited, uei_report,
};

use crate::abi;
use crate::agent::requests::{self, Requests};
use crate::agent::{self, Agent, KernelSide};
use crate::cli::Opts;
use crate::cli::SOCKET;
use crate::doctor::probe::probe;
use crate::doctor::{NotHonoured, Root};
use crate::locks::{KernelFacts, LockSet, LockType, Plan, State};
use crate::naming;
use crate::output;
use crate::stats::{self, Answer, GroupRow, Metrics, Readings, Request};
use crate::watcher::{self, Keeper};

#[allow(missing_docs, dead_code, non_camel_case_types, non_snake_case)] // generated
#[allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
mod skel {
    include!(concat!(env!("OUT_DIR"), "/bpf_skel.rs"));
}
use cpus::{cpu_ids, cpus_online, note_topology, online_cpus};
pub use ejected::{Cause, Ejected};
use refused::KernelLog;

use skel::{BpfSkel, BpfSkelBuilder, OpenBpfSkel};

/// How often the exit of the BPF side is looked for when nobody asks for stats.
const POLL: Duration = Duration::from_millis(250);

/// The scheduler in the kernel. Dropping it hands the CPUs back to the default.
pub struct Scheduler<'a> {
    skel: BpfSkel<'a>,
    struct_ops: Option<libbpf_rs::Link>,
    stats_server: StatsServer<Request, Answer>,
    /// Removed after the server, which connects to it to end.
    _socket: OwnSocket,
    /// What the agent is told by us; `None` without one.
    requests: Option<Requests>,
    /// Ended first: it asks the agent.
    keeper: Option<Keeper>,
    donating: Arc<AtomicBool>,
    /// What was read last, for when nothing can be read.
    last: Metrics,
    agent: Option<Agent>,
}

/// The folder of both sockets: its owner may make files in it without any capability, as the watcher has
/// to. scx_stats would make it with whatever umask there is.
pub(crate) fn make_socket_folder() -> std::io::Result<()> {
    let folder = Path::new(SOCKET).parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let mode = std::fs::metadata(folder)?.mode();
    if mode & 0o700 != 0o700 {
        std::fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The socket that our server made, and its inode. Dropped, it is gone, unless another one has taken its place.
pub(crate) struct OwnSocket(&'static str, Option<u64>);

fn inode(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

impl OwnSocket {
    /// That at `path`, which has just been made.
    pub(crate) fn new(path: &'static str) -> Self {
        Self(path, inode(path))
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        let there = inode(self.0);
        if there.is_some() && there == self.1 {
            let _ = std::fs::remove_file(self.0);
        }
    }
}

/// Fill the constants of include/config.h from the command line, for `cpus` possible CPUs.
fn configure(
    skel: &mut OpenBpfSkel,
    opts: &Opts,
    plan: &Plan,
    tracepoint: bool,
    cpus: u32,
    online: usize,
) -> Result<()> {
    let rodata = skel
        .maps
        .rodata_data
        .as_mut()
        .context("BPF object without constants")?;
    let cfg = &mut rodata.cfg;
    cfg.slice_ns = opts.slice_us * 1_000;
    cfg.lag_ns = opts.lag_us * 1_000;
    cfg.wakeup_gran_ns = opts.wakeup_gran_us * 1_000;
    cfg.protect_ns = opts.protect_us * 1_000;
    cfg.balance_ns = opts.balance_us * 1_000;
    cfg.starve_ns = opts.starve_ms * 1_000_000;
    cfg.nr_cpu_ids = cpus;
    cfg.nr_cpus_online = u32::try_from(online)?;
    cfg.hops_max = opts.hops_max;
    cfg.return_policy = opts.return_policy as u32;
    cfg.return_cold_ns = opts.return_cold_us * 1_000;
    cfg.return_margin_ns = opts.return_margin_us * 1_000;
    cfg.agent_tgid = kernels_pid();
    cfg.events = u8::from(!opts.no_agent);
    cfg.hints = u8::from(!opts.no_agent);
    cfg.track_by_tracepoint = u8::from(tracepoint);
    // prepare() takes these two back where BPF has no timers
    cfg.limits = 1;
    cfg.hrtick = 1;
    cfg.cpufreq = u8::from(!opts.no_cpufreq);
    skel.maps.cpu_ctxs.set_max_entries(cfg.nr_cpu_ids)?;
    skel.maps.hrticks.set_max_entries(cfg.nr_cpu_ids)?;
    skel.maps.donor_queues.set_max_entries(cfg.nr_cpu_ids)?;
    skel.maps.events.set_max_entries(opts.events_kib * 1024)?;
    cfg.locks = lock_bits(plan);
    skel.struct_ops.proxy_ops_mut().exit_dump_len = opts.exit_dump_len;
    Ok(())
}

/// Our process id as the kernel has it: in a pid namespace another one than getpid()'s.
pub(crate) fn kernels_pid() -> u32 {
    probe().map_or_else(|_| std::process::id(), |probed| probed.tgid)
}

/// Whether `/proc` knows tasks by the kernel's numbers: in a pid namespace it may not.
pub(crate) fn look_for_names() -> bool {
    let pid = kernels_pid();
    let shows_all = Root("/".into()).shows_all_tasks(pid);
    naming::use_proc(shows_all);
    if !shows_all {
        warn!(
            "this process, {pid} to the kernel, is in a pid namespace whose /proc does not show the machine's \
             tasks: tasks and places in programs have no names (start it with the machine's /proc: hostPID)"
        );
    }
    shows_all
}

/// What the watcher is started with.
pub(crate) fn watcher_args(socket: &str, shows_all_tasks: bool) -> Vec<String> {
    let parent = std::process::id().to_string();
    let args = ["watcher", "--parent", &parent, "--socket", socket];
    let no_proc = (!shows_all_tasks).then_some("--no-proc");
    args.into_iter().chain(no_proc).map(str::to_owned).collect()
}

/// The types of include/locks.h that are followed, a bit each.
fn lock_bits(plan: &Plan) -> u32 {
    let followed = LockType::followed().filter(|lock| plan.is_on(*lock));
    followed
        .filter_map(LockType::number)
        .fold(0, |bits, bit| bits | 1 << bit)
}

/// Load the optional programs that the locks need; the others stay out of the kernel.
fn choose_programs(skel: &mut OpenBpfSkel, plan: &Plan) -> Result<()> {
    for name in plan.programs() {
        let mut programs = skel.open_object_mut().progs_mut();
        let mut program = programs
            .find(|program| program.name() == name)
            .with_context(|| format!("the BPF object has no program {name}"))?;
        program.set_autoload(true);
    }
    Ok(())
}

/// Say once, at load, what is left out though it was asked for.
fn report_plan(plan: &Plan, wanted: &LockSet) {
    for row in plan.rows() {
        let (name, why) = (row.lock.name(), row.why.as_deref().unwrap_or("unknown"));
        if row.state == State::Off && wanted.contains(row.lock) {
            info!("{name}: not followed: {why} (scx_proxy doctor says more)");
        }
    }
    if !plan.follows_any() {
        warn!("no lock is followed: nothing will be donated");
    }
}

/// Kernels without CONFIG_EXT_GROUP_SCHED have no callbacks of cgroups.
fn leave_out_cgroups(skel: &mut OpenBpfSkel<'_>) -> Result<()> {
    if compat::struct_has_field("sched_ext_ops", "cgroup_init")? {
        return Ok(());
    }
    warn!(
        "this kernel has no CONFIG_EXT_GROUP_SCHED: cpu.weight and cpu.max of cgroups have no effect"
    );
    let ops = skel.struct_ops.proxy_ops_mut();
    ops.cgroup_init = std::ptr::null_mut();
    ops.cgroup_exit = std::ptr::null_mut();
    ops.cgroup_move = std::ptr::null_mut();
    ops.cgroup_set_weight = std::ptr::null_mut();
    skel.progs.proxy_cgroup_init.set_autoload(false);
    skel.progs.proxy_cgroup_exit.set_autoload(false);
    skel.progs.proxy_cgroup_move.set_autoload(false);
    skel.progs.proxy_cgroup_set_weight.set_autoload(false);
    Ok(())
}

/// Say once, at load, what has no effect.
fn report_not_honoured() {
    for sentence in NotHonoured::look(Path::new("/")).sentences() {
        info!("{sentence}");
    }
}

/// Whether mutex waiters must be followed by tracepoint: `task->blocked_on`
/// came with Linux 6.17.
fn needs_tracepoint() -> bool {
    !compat::struct_has_field("task_struct", "blocked_on").unwrap_or(false)
}

/// The bytes of a map's value, all of whose fields are integers.
fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: T is a type of the skeleton that was zeroed as a whole before its fields were
    // set, so its padding is initialized too; the slice lives as long as the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// With `-v`, and if the kernel keeps account (sysctl kernel.bpf_stats_enabled): what each
/// program cost.
fn report_costs() {
    for program in ProgInfoIter::default() {
        let name = program.name.to_string_lossy();
        if program.run_cnt > 0 && name.starts_with("proxy_") {
            let each_ns = program.run_time_ns / program.run_cnt;
            debug!(
                "{name}: {} runs, {each_ns} ns each, {} skipped",
                program.run_cnt, program.recursion_misses
            );
        }
    }
}

fn start_agent(
    skel: &mut BpfSkel,
    opts: agent::Options,
    incoming: Receiver<requests::Request>,
) -> Result<Agent> {
    let snapshot = skel.links.proxy_snapshot.take();
    let snapshot = Arc::new(snapshot.context("the task iterator is not attached")?);
    let maps = [
        MapHandle::try_from(&skel.maps.events)?,
        MapHandle::try_from(&skel.maps.proxy_stats)?,
    ];
    let hints = [
        MapHandle::try_from(&skel.maps.wait_hints)?,
        MapHandle::try_from(&skel.maps.return_hints)?,
    ];
    let watched = MapHandle::try_from(&skel.maps.watched)?;
    Agent::start(opts, incoming, move || {
        let hints = handles(&hints)?;
        let watched = MapHandle::try_from(&watched)?;
        KernelSide::new(
            handles(&maps)?,
            Some(hints),
            snapshot.clone(),
            Some(watched),
        )
    })
}

/// More handles of the same maps.
pub(crate) fn handles([first, second]: &[MapHandle; 2]) -> Result<[MapHandle; 2]> {
    Ok([MapHandle::try_from(first)?, MapHandle::try_from(second)?])
}

/// What libbpf is told. It looks for the kernel's configuration in two places only, and loads nothing
/// without; of all options our programs ask for the one that is answered here.
fn libbpf_opts(opts: &Opts) -> Result<bpf_object_open_opts> {
    if let Some(file) = &opts.libbpf.kconfig {
        std::fs::read_to_string(file).with_context(|| format!("--kconfig {file}"))?;
    }
    let mut said =
        opts.libbpf
            .clone()
            .into_bpf_open_opts()
            .unwrap_or_else(|| bpf_object_open_opts {
                sz: size_of::<bpf_object_open_opts>() as size_t,
                ..Default::default()
            });
    if opts.libbpf.kconfig.is_none() {
        let preempt_rcu = compat::struct_has_field("task_struct", "rcu_read_lock_nesting")?;
        let config = match preempt_rcu {
            true => c"CONFIG_PREEMPT_RCU=y\n",
            false => c"CONFIG_PREEMPT_RCU=n\n",
        };
        said.kconfig = config.as_ptr();
    }
    Ok(said)
}

/// Open the object and make it what `opts` ask for, as for a machine with `cpus` possible CPUs.
fn prepare<'a>(
    opts: &Opts,
    cpus: u32,
    object: &'a mut MaybeUninit<OpenObject>,
) -> Result<OpenBpfSkel<'a>> {
    let builder = BpfSkelBuilder::default();
    let open_opts = Some(libbpf_opts(opts)?);
    let mut skel = scx_ops_open!(builder, object, proxy_ops, open_opts)?;
    let tracepoint = opts.tracepoint || needs_tracepoint();
    let facts = KernelFacts::live().context("what this kernel has for locks")?;
    let plan = Plan::new(&facts, &opts.locks);
    let online = cpus_online()?.len();
    configure(&mut skel, opts, &plan, tracepoint, cpus, online)?;
    choose_programs(&mut skel, &plan)?;
    report_plan(&plan, &opts.locks);
    leave_out_cgroups(&mut skel)?;
    if facts.preempt_rt() {
        let rodata = skel.maps.rodata_data.as_mut();
        let cfg = &mut rodata.context("BPF object without constants")?.cfg;
        cfg.limits = 0;
        cfg.hrtick = 0;
        info!(
            "BPF has no timers on PREEMPT_RT: cpu.max of cgroups is not enforced, \
             and a task that woke may preempt a tick later"
        );
    }
    if tracepoint {
        info!("mutex waiters are followed by tracepoint lock:contention_begin");
    }
    Ok(skel)
}

/// Have the kernel verify and take all programs; nothing runs yet.
fn load(mut skel: OpenBpfSkel<'_>) -> Result<BpfSkel<'_>> {
    info!("loading (slow under emulation: the kernel verifies each program)");
    scx_ops_load!(skel, proxy_ops, uei)
}

impl<'a> Scheduler<'a> {
    /// Open, load and attach the scheduler. `donating` says whether it is to donate, also later;
    /// `lock_memory` is called before it is attached.
    ///
    /// # Errors
    /// What libbpf or the kernel refused; nothing stays loaded then.
    pub fn load(
        opts: &Opts,
        donating: &Arc<AtomicBool>,
        lock_memory: fn() -> Result<()>,
        object: &'a mut MaybeUninit<OpenObject>,
    ) -> Result<Self> {
        let print = || {
            scx_utils::init_libbpf_logging((opts.verbose > 1).then_some(PrintLevel::Debug));
        };
        // said twice otherwise: by libbpf, and by us
        match opts.verbose {
            0 => refused::listen(),
            _ => print(),
        }
        let mut skel = prepare(opts, cpu_ids()?, object)?;
        report_not_honoured();
        // only now: of what changes after the object was opened, the kernel knows, and has us loaded again
        let online = online_cpus(&opts.big_cpus).context("which CPUs are online")?;
        let data = skel.maps.data_data.as_mut();
        let data = data.context("BPF object without variables")?;
        data.donating = u32::from(donating.load(Ordering::Relaxed));
        let mut skel = load(skel).map_err(|error| refused::to_load(&error))?;
        for prog in ProgInfoIter::default() {
            debug!(
                "{:?}: {} instructions verified",
                prog.name, prog.verified_insns
            );
        }
        note_topology(&mut skel, &online)?;
        lock_memory()?;
        let shows_all_tasks = look_for_names();
        let mut kernel_log = KernelLog::from_now_on();
        let attached = scx_ops_attach!(skel, proxy_ops);
        let attached = attached.map_err(|error| refused::to_attach(&error, &mut kernel_log));
        let struct_ops = Some(attached?);
        print();
        let agent_opts = agent::Options {
            print_events: opts.print_events,
            donating: donating.clone(),
        };
        let (requests, agent) = if opts.no_agent {
            (None, None)
        } else {
            let (requests, incoming) = requests::channel();
            (
                Some(requests),
                Some(start_agent(&mut skel, agent_opts, incoming)?),
            )
        };
        let keeper = requests
            .clone()
            .map(|requests| {
                let args = watcher_args(watcher::SOCKET, shows_all_tasks);
                Keeper::start(requests, watcher::SOCKET, args)
            })
            .transpose()?;
        let watcher = keeper.as_ref().map(Keeper::handle);
        let server = StatsServer::new(stats::server_data(watcher, std::thread::current()));
        const WRITABLE: &str = "stats server: is /var/run writable?";
        make_socket_folder().context(WRITABLE)?;
        // it also switches donation: no other user may connect
        let server = output::private_umask(|| server.launch());
        let stats_server = server.context(WRITABLE)?;
        let socket = OwnSocket::new(SOCKET);
        info!("scx_proxy is scheduling {} CPUs", online.len());
        Ok(Self {
            skel,
            struct_ops,
            stats_server,
            _socket: socket,
            requests,
            keeper,
            donating: donating.clone(),
            last: Metrics::default(),
            agent,
        })
    }

    /// Serve stats until the scheduler exits or `shutdown` is set, and call `look` several times a
    /// second; then unload and report why it ended.
    ///
    /// # Errors
    /// An exit of the BPF side that was an error, with the kernel's report: [`Ejected`].
    pub fn run(
        mut self,
        shutdown: &Arc<AtomicBool>,
        mut look: impl FnMut(&mut Self),
    ) -> Result<UserExitInfo> {
        let (answers, requests) = self.stats_server.channels();
        while !shutdown.load(Ordering::Relaxed) && !self.exited() {
            look(&mut self);
            match requests.try_recv() {
                Ok(Request::Metrics) => answers.send(Answer::Metrics(Box::new(self.totals())))?,
                Ok(Request::Donate(on)) => answers.send(Answer::Donating(self.donate(on)))?,
                Ok(Request::Groups) => answers.send(Answer::Groups(self.groups()))?,
                // Not recv_timeout(): it yields several times before it sleeps, and each of that would
                // be a context switch at the expense of the tasks that are scheduled here. A
                // request wakes this thread.
                Err(TryRecvError::Empty) => std::thread::park_timeout(POLL),
                Err(e) => Err(e)?,
            }
        }
        report_costs();
        // first what schedules: whatever the rest is held up by must not keep it in the kernel
        drop(self.struct_ops.take());
        drop(self.keeper.take());
        drop(self.agent.take());
        // the report panics where it cannot be written
        output::mute_unread_stderr();
        self.report()
    }

    // The macros of scx_utils unwrap what the skeleton always has.
    #[allow(clippy::unwrap_used, clippy::undocumented_unsafe_blocks)]
    fn exited(&self) -> bool {
        uei_exited!(&self.skel, uei)
    }

    #[allow(clippy::unwrap_used)] // as above
    fn report(&self) -> Result<UserExitInfo> {
        let kind = self
            .skel
            .maps
            .data_data
            .as_ref()
            .map_or(0, |data| data.uei.kind);
        let report: Result<UserExitInfo> = uei_report!(&self.skel, uei);
        report.map_err(|error| {
            let said = format!("{error:#}");
            let cause = Cause::new(kind, &said);
            Ejected { cause, said }.into()
        })
    }

    /// Donate from now on, or only observe; which of the two it does then.
    pub fn donate(&mut self, on: bool) -> bool {
        let Some(data) = self.skel.maps.data_data.as_mut() else {
            return self.donating.load(Ordering::Relaxed);
        };
        // SAFETY: BPF reads the word at any time, and nothing else writes it.
        unsafe { std::ptr::write_volatile(&mut data.donating, u32::from(on)) };
        self.donating.store(on, Ordering::Relaxed);
        info!("{}", if on { "donating" } else { "observing only" });
        if let Some(requests) = &self.requests {
            requests.switched(on);
        }
        on
    }

    /// All counters; if they cannot be read now, as they were. No request ends the scheduler.
    fn totals(&mut self) -> Metrics {
        match self.metrics() {
            Ok(metrics) => self.last = metrics,
            Err(e) => warn!("stats cannot be read: {e:#}"),
        }
        self.last.clone()
    }

    fn metrics(&self) -> Result<Metrics> {
        let mut totals = [0_u64; abi::proxy_stat_NR_PROXY_STATS as usize];
        for (stat, total) in totals.iter_mut().enumerate() {
            let key = u32::try_from(stat)?.to_ne_bytes();
            let per_cpu = self
                .skel
                .maps
                .proxy_stats
                .lookup_percpu(&key, MapFlags::ANY)?;
            for copy in per_cpu.unwrap_or_default() {
                let bytes = copy.first_chunk::<8>().context("counter of 8 bytes")?;
                *total = total.wrapping_add(u64::from_ne_bytes(*bytes));
            }
        }
        Ok(Metrics::new(&totals, self.readings()?))
    }

    /// The cgroups that there are. One that goes meanwhile may be left out.
    fn groups(&self) -> Vec<GroupRow> {
        let maps = &self.skel.maps;
        let numbers = maps.group_numbers.keys();
        let numbers =
            numbers.filter_map(|id| maps.group_numbers.lookup(&id, MapFlags::ANY).ok()?);
        let groups = numbers.filter_map(|nr| maps.groups.lookup(&nr, MapFlags::ANY).ok()?);
        let rows = groups.map(|bytes| {
            // SAFETY: as for cpu_ctx below.
            let group: skel::types::group =
                unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
            group_row(&group)
        });
        rows.collect()
    }

    fn readings(&self) -> Result<Readings> {
        let mut readings = Readings::default();
        let online = cpus_online()?;
        let mut perf = 0;
        for cpu in 0..cpu_ids()? {
            let key = cpu.to_ne_bytes();
            let Some(value) = self.skel.maps.cpu_ctxs.lookup(&key, MapFlags::ANY)? else {
                continue;
            };
            // SAFETY: the map's value type is this struct, from the same object's BTF,
            // all of whose fields are integers; the copy need not be aligned.
            let ctx: skel::types::cpu_ctx =
                unsafe { std::ptr::read_unaligned(value.as_ptr().cast()) };
            if online.contains(&(cpu as usize)) {
                perf += u64::from(ctx.perf_told);
            }
            readings.donors_queued_now += u64::from(ctx.nr_donors);
            readings.tasks_queued_now += ctx.nr_queued.iter().map(|n| u64::from(*n)).sum::<u64>();
        }
        if let Some(agent) = &self.agent {
            let state = agent.state();
            readings.agent_waits_now = state.waits_now.load(Ordering::Relaxed);
            readings.agent_hints_now = state.hints_now.load(Ordering::Relaxed);
            readings.agent_watched_now = state.watched.load(Ordering::Relaxed);
            readings.agent_rounds = state.rounds.load(Ordering::Relaxed);
            readings.agent_events = state.events.load(Ordering::Relaxed);
            readings.agent_rebuilds = state.rebuilds.load(Ordering::Relaxed);
            readings.agent_restarts = state.restarts.load(Ordering::Relaxed);
            readings.events_missed = state.missed.load(Ordering::Relaxed);
            readings.deadlocks = state.deadlocks.load(Ordering::Relaxed);
        }
        readings.recursion_misses = programs::recursion_misses(&self.skel)?;
        readings.cpus = online.len() as u64;
        let most = u64::from(abi::PERF_ONE) * readings.cpus.max(1);
        readings.cpuperf_percent_now = perf * 100 / most;
        Ok(readings)
    }
}

/// Weights in the unit of cpu.weight, of which 100 is nice 0.
fn group_row(group: &skel::types::group) -> GroupRow {
    const CGROUP_WEIGHT_NORMAL: f64 = 100.0;
    let nice_0 = f64::from(abi::WEIGHT_NICE_0);
    GroupRow {
        id: group.id,
        weight: f64::from(group.shares) * CGROUP_WEIGHT_NORMAL / nice_0,
        effective_weight: group.weight as f64 * CGROUP_WEIGHT_NORMAL / nice_0,
        competing: (group.own_nr + group.child_nr) as f64 / f64::from(abi::GROUP_NR_ONE),
        quota_ns: group.quota_ns,
        period_ns: if group.quota_ns == 0 {
            0
        } else {
            group.period_ns
        },
        throttled: group.throttled,
        throttled_ns: group.throttled_ns,
    }
}
