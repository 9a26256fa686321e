// SPDX-License-Identifier: GPL-2.0-only
//! The host-compiled C as a policy of the model: each callback is handed on to
//! `bpf/core/host.c`, each port back to the simulated kernel.

use std::collections::BTreeSet;
use std::ffi::{c_int, c_uint, c_void};

use scx_proxy::abi;
use scx_proxy::model::policy::{
    Config, Cpu, DeqFlags, Domain, DonorPlace, DonorView, EnqFlags, Group, Kernel, Kick, Limit,
    Lock, Moved, Pid, Policy, Reach, View, WakeKind,
};

use super::sys::{self, host_engine, host_ports, proxy_config, proxy_event};

/// Most tasks of one simulation, 0 not counted.
const TASKS_MAX: u32 = 4096;

/// Where the wait number begins in a token, see `bpf/core/token.h`.
const SEQ_SHIFT: u32 = 40;

/// What the clock says when a simulation begins. To the C a time of 0 means "not now", which a
/// kernel's clock is past before it schedules anything. Its low bits are 0, since some of them
/// order donors that were put back.
const BOOT_NS: u64 = 1 << 40;

/// The engine; freed when dropped.
pub struct CoreC {
    engine: *mut host_engine,
    nr_cpus: u32,
    /// Tasks that it has been told of.
    seen: BTreeSet<Pid>,
    /// What `EVENT_*` the engine has sent, if they are wanted.
    pub events: Option<Vec<proxy_event>>,
}

/// What stands behind the ports during one callback.
struct Machine<'a> {
    kernel: &'a mut dyn Kernel,
    events: Option<&'a mut Vec<proxy_event>>,
}

impl CoreC {
    pub fn new(cfg: &Config) -> Self {
        let config = proxy_config {
            slice_ns: cfg.slice_ns,
            lag_ns: cfg.lag_ns,
            wakeup_gran_ns: cfg.wakeup_gran_ns,
            protect_ns: cfg.protect_ns,
            balance_ns: cfg.balance_ns,
            starve_ns: cfg.starve_ns,
            return_cold_ns: 5_000_000,
            return_margin_ns: 1_000_000,
            return_policy: 0,
            agent_tgid: 0,
            nr_cpu_ids: cfg.nr_cpus,
            nr_cpus_online: cfg.nr_cpus,
            hops_max: cfg.hops_max,
            events: 1,
            hints: 1,
            limits: 1,
            hrtick: 1,
            cpufreq: 1,
            track_by_tracepoint: 0,
            locks: u32::MAX,
        };
        // SAFETY: config is valid for the call; the result is checked.
        let engine = unsafe { sys::host_engine_new(&config, TASKS_MAX) };
        assert!(!engine.is_null(), "no memory, or too many CPUs");
        // SAFETY: it was made just now.
        unsafe { sys::host_set_donating(engine, c_int::from(cfg.donate)) };
        place(engine, &cfg.domains);
        for &cpu in &cfg.nohz_full {
            // SAFETY: the engine was made for these CPUs.
            unsafe { sys::host_nohz_full(engine, cpu as c_int) };
        }
        Self {
            engine,
            nr_cpus: cfg.nr_cpus,
            seen: BTreeSet::new(),
            events: None,
        }
    }

    /// Calls `callback` with ports that lead to `kernel`.
    fn call<T>(
        &mut self,
        kernel: &mut dyn Kernel,
        callback: impl FnOnce(*mut host_engine, &host_ports) -> T,
    ) -> T {
        let mut machine = Machine {
            kernel,
            events: self.events.as_mut(),
        };
        let ports = ports(std::ptr::from_mut(&mut machine).cast());
        callback(self.engine, &ports)
    }

    fn meet(&mut self, pid: Pid) {
        assert!(pid < TASKS_MAX);
        self.seen.insert(pid);
    }

    /// A counter of `include/stats.h`.
    pub fn stat(&self, stat: u32) -> u64 {
        // SAFETY: the engine lives as long as self.
        unsafe { sys::host_stat(self.engine, stat) }
    }

    /// Entries on the donor queue of `cpu`.
    pub fn queue_length(&self, cpu: Cpu) -> u32 {
        // SAFETY: as above, and cpu exists.
        unsafe { sys::host_queue_length(self.engine, cpu as c_int) }
    }

    /// As the agent would write it.
    pub fn set_wait_hint(&mut self, pid: Pid, hint: abi::wait_hint) {
        let hint = sys::wait_hint {
            wait_seq: hint.wait_seq,
            to_wait_seq: hint.to_wait_seq,
            expires_ns: hint.expires_ns,
            hint_seq: hint.hint_seq,
            to_pid: hint.to_pid,
            kind: hint.kind,
            pid,
            pad: 0,
        };
        assert!(pid < TASKS_MAX);
        // SAFETY: pid is in range, hint is valid for the call.
        unsafe { sys::host_set_wait_hint(self.engine, pid, &hint) };
    }

    /// ns that `pid` could have run and did not, or waited for somebody who could have, as far as
    /// such times are over.
    pub fn delay_ns(&self, pid: Pid) -> u64 {
        // SAFETY: the engine lives as long as self.
        unsafe { sys::host_delay(self.engine, pid) }
    }

    fn host_donor(&self, pid: Pid) -> sys::host_donor {
        let mut donor = sys::host_donor {
            token: 0,
            wait_seq: 0,
            key: 0,
            yields_to: 0,
        };
        // SAFETY: pid is in range, donor is valid for the write.
        unsafe { sys::host_donor(self.engine, pid, &mut donor) };
        donor
    }

    fn donor(&self, pid: Pid) -> Option<DonorView> {
        let donor = self.host_donor(pid);
        let place = donor.token as u32;
        let place = match donor.token >> 32 & 0xff {
            0 => return None,
            1 => DonorPlace::Queued(place >> 16),
            2 => DonorPlace::Attached(place),
            3 => DonorPlace::Active(place),
            5 => DonorPlace::Limbo,
            kind => panic!("token of kind {kind} left behind by a callback"),
        };
        Some(DonorView {
            pid,
            wait: donor.wait_seq >> SEQ_SHIFT,
            place,
            key: donor.key,
            yields_to: Some(donor.yields_to).filter(|&to| to != 0),
        })
    }
}

/// Tells the engine where the CPUs are.
fn place(engine: *mut host_engine, domains: &[Domain]) {
    for (nr, domain) in (0..).zip(domains) {
        for (bit, &cpu) in (0..).zip(&domain.cpus) {
            let first = c_int::from(domain.paired && bit % 2 == 0);
            // SAFETY: the engine was made for these CPUs; a domain holds 64 at the most.
            unsafe { sys::host_place(engine, cpu as c_int, nr, bit, first) };
        }
        let bits = |cpu| domain.cpus.iter().position(|c| c == cpu);
        let big = domain
            .big
            .iter()
            .filter_map(bits)
            .fold(0, |big, bit| big | 1 << bit);
        // SAFETY: as above.
        unsafe { sys::host_big(engine, nr, big) };
        let near = domain.near.iter().fold(0, |near, other| near | 1 << other);
        // SAFETY: as above.
        unsafe { sys::host_near(engine, nr, near) };
    }
}

impl Drop for CoreC {
    fn drop(&mut self) {
        // SAFETY: made by host_engine_new(), not used after this.
        unsafe { sys::host_engine_free(self.engine) }
    }
}

fn kernel<'a>(machine: *mut c_void) -> &'a mut dyn Kernel {
    // SAFETY: the pointer was made in call(), which waits for the callback to return.
    let machine: &'a mut Machine<'a> = unsafe { &mut *machine.cast::<Machine<'a>>() };
    machine.kernel
}

extern "C" fn send_event(machine: *mut c_void, event: *const proxy_event) {
    // SAFETY: as in kernel(); event is valid for the call.
    let (machine, event) = unsafe { (&mut *machine.cast::<Machine<'_>>(), *event) };
    if let Some(events) = machine.events.as_mut() {
        events.push(event);
    }
}

macro_rules! ports {
    ($machine:expr, $($port:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? = $body:expr;)*) => {{
        $(
            extern "C" fn $port(machine: *mut c_void, $($arg: $ty),*) $(-> $ret)? {
                let body: fn(&mut dyn Kernel, $($ty),*) $(-> $ret)? = $body;
                body(kernel(machine), $($arg),*)
            }
        )*
        host_ports {
            machine: $machine,
            $($port: Some($port),)*
            event: Some(send_event),
        }
    }};
}

fn reach_of(reach: c_uint) -> Reach {
    match Reach::ALL.get(reach as usize) {
        Some(reach) => *reach,
        None => Reach::Parked,
    }
}

/// Keys of parked tasks are times, and those are told apart by when the machine was booted.
fn time_offset(reach: c_uint) -> u64 {
    if reach_of(reach) == Reach::Parked {
        BOOT_NS
    } else {
        0
    }
}

fn ports(machine: *mut c_void) -> host_ports {
    const KEY_NONE: u64 = u64::MAX;
    ports! { machine,
        now() -> u64 = |k| BOOT_NS + k.now_ns();
        this_cpu() -> c_int = |k| k.this_cpu() as c_int;
        current(cpu: c_int) -> c_uint = |k, cpu| k.current(cpu as Cpu).unwrap_or(0);
        alive(pid: c_uint) -> c_int = |k, pid| c_int::from(k.alive(pid));
        exec_ns(pid: c_uint) -> u64 = |k, pid| k.exec_ns(pid);
        nice(pid: c_uint) -> c_int = |k, pid| k.nice(pid);
        task_cpu(pid: c_uint) -> c_int = |k, pid| k.task_cpu(pid) as c_int;
        group_shares(group: c_uint) -> c_uint = |k, group| k.group_shares(group);
        group_limit(group: c_uint, quota: *mut u64, period: *mut u64, burst: *mut u64) =
            |k, group, quota, period, burst| {
                let limit = k.group_limit(group);
                let none = Limit { quota_ns: 0, period_ns: 0, burst_ns: 0 };
                let limit = limit.unwrap_or(none);
                // SAFETY: the engine passes places of its own.
                unsafe {
                    quota.write(limit.quota_ns);
                    period.write(limit.period_ns);
                    burst.write(limit.burst_ns);
                }
            };
        rekey(cpu: c_int, reach: c_uint, key: u64) = |k, cpu, reach, key| {
            k.dsq_rekey(cpu as Cpu, reach_of(reach), key - time_offset(reach));
        };
        may_run(pid: c_uint, cpu: c_int) -> c_int = |k, pid, cpu| c_int::from(k.may_run(pid, cpu as Cpu));
        pinned(pid: c_uint) -> c_int = |k, pid| c_int::from(k.pinned(pid));
        unrestricted(pid: c_uint) -> c_int = |k, pid| c_int::from(k.unrestricted(pid));
        user(_pid: c_uint) -> c_uint = |_, _| 0;
        urgency(pid: c_uint) -> c_uint = |k, pid| k.urgency(pid);
        core_runs(pid: c_uint) -> c_int = |k, pid| c_int::from(k.core_runs(pid));
        blocked_on(pid: c_uint) -> u64 = |k, pid| k.blocked_on(pid).unwrap_or(0);
        owner_of(lock: Lock) -> c_uint = |k, lock| k.owner_of(lock).unwrap_or(0);
        first_waiter_of(lock: Lock) -> c_uint = |k, lock| k.first_waiter_of(lock).unwrap_or(0);
        wakes_after_release(lock: Lock) -> c_int = |k, lock| c_int::from(k.wakes_after_release(lock));
        candidates_of(lock: Lock) -> c_uint = |k, lock| k.candidates_of(lock).len() as c_uint;
        candidate_of(lock: Lock, nr: c_uint) -> c_uint = |k, lock, nr| k.candidates_of(lock)[nr as usize];
        points_at(pid: c_uint, lock: Lock) -> c_int = |k, pid, lock| c_int::from(k.points_at(pid, lock));
        insert(pid: c_uint, cpu: c_int, reach: c_uint, key: u64, slice_ns: u64) =
            |k, pid, cpu, reach, key, slice_ns| {
                let key = key.wrapping_sub(time_offset(reach));
                k.dsq_insert_vtime(pid, cpu as Cpu, reach_of(reach), key, slice_ns);
            };
        head(cpu: c_int, reach: c_uint, pid: *mut c_uint) -> u64 = |k, cpu, reach, pid| {
            let head = k.dsq_head(cpu as Cpu, reach_of(reach));
            let head = head.map(|(key, pid)| (key.wrapping_add(time_offset(reach)), pid));
            let (key, first) = head.unwrap_or((KEY_NONE, 0));
            // SAFETY: the engine passes a place of its own.
            unsafe { pid.write(first) };
            key
        };
        move_task(pid: c_uint, from: c_int, reach: c_uint, cpu: c_int, slice_ns: u64) -> c_int =
            |k, pid, from, reach, cpu, slice_ns| {
                match k.dsq_move_task(pid, from as Cpu, reach_of(reach), cpu as Cpu, slice_ns) {
                    Moved::Moved => 0,
                    Moved::Lost => 1,
                    Moved::Refused => 2,
                }
            };
        head_take(from: c_int, reach: c_uint, cpu: c_int) -> c_int = |k, from, reach, cpu| {
            c_int::from(k.dsq_move_to_local(from as Cpu, reach_of(reach), cpu as Cpu))
        };
        set_slice(pid: c_uint, ns: u64) = |k, pid, ns| k.set_slice(pid, ns);
        kick(cpu: c_int, how: c_int) = |k, cpu, how| {
            let kind = match how {
                0 => Kick::Resched,
                1 => Kick::Idle,
                _ => Kick::Preempt,
            };
            k.kick(cpu as Cpu, kind);
        };
        start_hrtick(cpu: c_int, ns: u64) = |k, cpu, ns| k.start_hrtick(cpu as Cpu, ns);
    }
}

// SAFETY of the calls below: the engine lives as long as self, the ports as long as the
// call, and pids stay below TASKS_MAX (checked when a task is enabled).
#[allow(clippy::undocumented_unsafe_blocks)]
impl Policy for CoreC {
    fn enable(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.meet(t);
        self.call(k, |e, p| unsafe { sys::host_enable(e, p, t) })
    }
    fn group_begin(&mut self, g: Group, parent: Group, shares: u32) {
        unsafe { sys::host_group_begin(self.engine, g, parent, shares) }
    }
    fn group_move(&mut self, k: &mut dyn Kernel, t: Pid, g: Group) {
        self.meet(t);
        self.call(k, |e, p| unsafe { sys::host_group_move(e, p, t, g) })
    }
    fn disable(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.call(k, |e, p| unsafe { sys::host_disable(e, p, t) })
    }
    fn select_cpu(&mut self, k: &mut dyn Kernel, t: Pid, prev_cpu: Cpu, kind: WakeKind) -> Cpu {
        let kind = match kind {
            WakeKind::Plain => 0,
            WakeKind::Sync => 1,
            WakeKind::Fork => 2,
        };
        self.call(k, |e, p| unsafe {
            sys::host_select_cpu(e, p, t, prev_cpu as c_int, kind)
        }) as Cpu
    }
    fn update_idle(&mut self, k: &mut dyn Kernel, cpu: Cpu, idle: bool) {
        let idle = c_int::from(idle);
        self.call(k, |e, p| unsafe {
            sys::host_update_idle(e, p, cpu as c_int, idle)
        })
    }
    /// It has no such callback: `enqueue` or `running` come at once.
    fn runnable(&mut self, _k: &mut dyn Kernel, _t: Pid, _flags: EnqFlags) {}
    fn enqueue(&mut self, k: &mut dyn Kernel, t: Pid, _cpu: Cpu, flags: EnqFlags) {
        let (wakeup, selected) = (c_int::from(flags.wakeup), c_int::from(flags.cpu_selected));
        let (last, came_back) = (c_int::from(flags.last), c_int::from(flags.came_back));
        self.call(k, |e, p| unsafe {
            sys::host_enqueue(e, p, t, wakeup, selected, last, came_back)
        })
    }
    fn dispatch(&mut self, k: &mut dyn Kernel, cpu: Cpu, prev: Option<Pid>) {
        let prev = prev.unwrap_or(0);
        self.call(k, |e, p| unsafe {
            sys::host_dispatch(e, p, cpu as c_int, prev)
        })
    }
    fn running(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.call(k, |e, p| unsafe { sys::host_running(e, p, t) })
    }
    fn stopping(&mut self, k: &mut dyn Kernel, t: Pid, runnable: bool) {
        // else `quiescent` comes at once
        if runnable {
            self.call(k, |e, p| unsafe { sys::host_stopping(e, p, t) })
        }
    }
    fn quiescent(&mut self, k: &mut dyn Kernel, t: Pid, flags: DeqFlags) {
        let sleeps = c_int::from(flags.sleep);
        self.call(k, |e, p| unsafe { sys::host_quiescent(e, p, t, sleeps) })
    }
    fn tick(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.call(k, |e, p| unsafe { sys::host_tick(e, p, t) })
    }
    fn hrtick(&mut self, k: &mut dyn Kernel, cpu: Cpu) {
        self.call(k, |e, p| unsafe { sys::host_hrtick(e, p, cpu as c_int) })
    }
    fn yields(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.call(k, |e, p| unsafe { sys::host_yield(e, p, t) })
    }
    fn yields_to(&mut self, k: &mut dyn Kernel, t: Pid, to: Pid) -> bool {
        self.call(k, |e, p| unsafe { sys::host_yield_to(e, p, t, to) }) != 0
    }
    fn timer(&mut self, k: &mut dyn Kernel) {
        self.call(k, |e, p| unsafe { sys::host_timer(e, p) })
    }
    fn contention_begin(&mut self, k: &mut dyn Kernel, t: Pid, cpu: Cpu) {
        self.meet(t);
        self.call(k, |e, p| unsafe {
            sys::host_contention_begin(e, p, t, cpu as c_int)
        })
    }
    fn contention_end(&mut self, k: &mut dyn Kernel, t: Pid) {
        self.call(k, |e, p| unsafe { sys::host_contention_end(e, p, t) })
    }
    fn view(&self) -> View {
        let key = |pid: &Pid| (*pid, unsafe { sys::host_key(self.engine, *pid) });
        let wait = |pid: &Pid| (*pid, self.host_donor(*pid).wait_seq >> SEQ_SHIFT);
        let clock = |cpu| unsafe { sys::host_clock(self.engine, cpu as c_int) };
        View {
            own_ns: self.stat(abi::proxy_stat_STAT_OWN_NS),
            donated_ns: self.stat(abi::proxy_stat_STAT_DONATED_NS),
            donors: self.seen.iter().filter_map(|p| self.donor(*p)).collect(),
            clocks: (0..self.nr_cpus).map(clock).collect(),
            keys: self.seen.iter().map(key).collect(),
            waits: self.seen.iter().map(wait).collect(),
        }
    }
}
