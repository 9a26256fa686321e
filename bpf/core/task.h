/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What happens to a task, in the order in which it happens: it wakes, is queued,
 * runs, stops, goes to sleep. One function per callback of sched_ext, called under
 * the locks that the kernel holds around that (DESIGN.md, "Protection").
 */
#ifndef PROXY_CORE_TASK_H
#define PROXY_CORE_TASK_H

/* Key of the task that ran on the donor's context: what it is judged by from now on. */
static __always_inline u64 owner_own_key(u32 owner_pid, const struct cpu_ctx *cctx)
{
	struct task_struct *o = port_task_get(owner_pid);
	struct task_ctx *tctx = o ? task_ctx_of(o) : NULL;
	u64 key = tctx ? tctx->vtime : cctx->clock;

	if (o)
		port_task_put(o);
	return key;
}

/* The facts of a donor that wakes while no CPU is idle, for the rule in return.h. */
static __always_inline void return_look(struct task_struct *p, struct task_ctx *tctx, s32 home,
					struct return_facts *f)
{
	u64 now = port_now(), token = tctx->token;
	s32 away = tctx->wait_cpu;
	struct cpu_ctx *hctx = cpu_ctx_of(home), *actx = cpu_ctx_of(away);

	f->away = away;
	f->owner_runs = token_kind(token) == TOKEN_ACTIVE;
	f->owner_allowed = away != home && !port_pinned(p) && port_may_run(p, away);
	f->waited_ns = now - tctx->blocked_at_ns;
	if (!f->owner_runs || !f->owner_allowed || !hctx || !actx)
		return;
	f->home_busy = hctx->running_since_ns;
	f->shares_cache = hctx->cache_id == actx->cache_id;
	f->home_lead = running_key_now(hctx, now) - hctx->clock;
	f->owner_lead = owner_own_key(token_place(token), actx) - actx->clock;
	f->owner_bias_ns = cfg.hints ? hint_owner_bias(tctx->wait_type) : 0;
}

/* ops.select_cpu(): an idle CPU, else the one whose queue it goes to: a donor returns by rule. */
static __always_inline s32 task_select_cpu(struct task_struct *p, struct task_ctx *tctx, s32 home,
					   enum wake_kind kind)
{
	bool returns = tctx->token && port_donating();
	struct return_facts f = {};
	struct placed at;

	place_wakeup(p, home, tctx->token && kind == WAKE_SYNC ? WAKE_PLAIN : kind,
		     tctx->token && cfg.return_policy == RETURN_POLICY_HOME, &at);
	if (at.idle)
		stat_inc(STAT_WAKE_IDLE);
	if (!returns)
		return at.cpu;
	if (at.idle) {
		tctx->return_choice = RETURN_IDLE;
		stat_inc(STAT_RETURN_IDLE);
	} else {
		return_look(p, tctx, home, &f);
		tctx->return_choice = return_choose(&f, cfg.return_policy, cfg.return_cold_ns,
						    cfg.return_margin_ns);
		at.cpu = tctx->return_choice == RETURN_OWNER ? f.away : home;
		stat_inc(tctx->return_choice == RETURN_OWNER ? STAT_RETURN_OWNER :
							       STAT_RETURN_HOME);
	}
	tctx->return_cpu = at.cpu;
	return at.cpu;
}

/* A donor that returned runs now: what came of the choice. */
static __always_inline void return_outcome(struct task_struct *p, struct task_ctx *tctx, s32 cpu)
{
	u64 now = port_now(), ns;
	u32 choice = tctx->return_choice;
	bool moved = cpu != tctx->return_cpu;

	tctx->return_choice = RETURN_NONE;
	ns = now > tctx->woke_at_ns ? now - tctx->woke_at_ns : 0;
	switch (choice) {
	case RETURN_IDLE:
		stat_add(STAT_RETURN_IDLE_NS, ns);
		if (moved)
			stat_inc(STAT_RETURN_IDLE_MOVED);
		break;
	case RETURN_HOME:
		stat_add(STAT_RETURN_HOME_NS, ns);
		if (moved)
			stat_inc(STAT_RETURN_HOME_MOVED);
		break;
	case RETURN_OWNER:
		stat_add(STAT_RETURN_OWNER_NS, ns);
		if (moved)
			stat_inc(STAT_RETURN_OWNER_MOVED);
		break;
	}
	event(EVENT_RETURN, cpu, port_pid(p), choice | (moved ? RETURN_MOVED : 0), tctx->wait_type,
	      ns);
}

/*
 * @p got its lock from a task that runs in another task's context, from
 * further down the same chain: that donor now waits for @p, so this CPU picks
 * again instead of letting the former owner use up the donor's slice.
 * sched_ext wakes on the waker's CPU unless SCX_OPS_ALLOW_QUEUED_WAKEUP is set
 * (kernel/sched/core.c, ttwu_queue_cond()), so current is the task that released the lock.
 */
static __always_inline void chain_moved_on(struct task_struct *p)
{
	struct task_ctx *wctx = task_ctx_of(port_current());

	if (!wctx || !wctx->donor_pid || wctx->donor_pid == port_pid(p))
		return;
	stat_inc(STAT_RETURN_PREEMPT);
	port_kick(port_this_cpu(), PORT_KICK_PREEMPT);
}

/* @tctx is runnable, at @weight by nice value and policy: its context competes. */
static __always_inline void weight_new(struct task_ctx *tctx, u32 weight)
{
	if (!tctx->group) {
		tctx->own_weight = weight;
		weight_set(tctx, weight);
		return;
	}
	if (tctx->counted != weight) { /* it waited as a donor, and was reniced meanwhile */
		group_count(tctx, 0);
		tctx->own_weight = weight;
		group_count(tctx, 1);
	}
	weight_refresh(tctx);
}

/* Whether what stands behind edge word @lock is a word in user space. */
static __always_inline bool lock_of_futex(u64 lock)
{
	u32 type = lock & LOCK_TYPE_MASK;

	return type == LOCK_PTHREAD || type == LOCK_FUTEX;
}

/* @p has a token, and is runnable: its wait is over. */
CORE_FN int donor_runnable(struct task_struct *p __arg_trusted)
{
	struct task_ctx *tctx = task_ctx_of(p);
	s32 owner_cpu;

	if (!tctx)
		return 0;
	if (tctx->yields_to) { /* it was changed while it was queued */
		yield_end(p, tctx);
		return 0;
	}
	if (tctx->return_choice == RETURN_NONE && port_donating()) {
		/* the kernel did not ask: it may run on one CPU only */
		tctx->return_choice = RETURN_HOME;
		tctx->return_cpu = port_task_cpu(p);
		stat_inc(STAT_RETURN_HOME);
	}
	chain_moved_on(p);
	owner_cpu = donor_wake(p, tctx);
	if (owner_cpu >= 0)
		donated_slice_end(p, owner_cpu);
	return 0;
}

/*
 * @p is runnable from now on. There is no ops.runnable(), since a callback costs more than this does:
 * ops.enqueue() comes at once, or ops.running(), where the kernel puts back what it has taken off the CPU
 * to change it, and where it schedules by itself (enqueue_task_scx(), do_enqueue_task()).
 */
static __always_inline void task_runnable(struct task_struct *p, struct task_ctx *tctx, u64 now)
{
	if (tctx->place != PLACE_ASLEEP)
		return;
	tctx->place = PLACE_LOCAL;
	weight_new(tctx, port_weight(p));
	delay_begin(tctx, now);
	/* whatever it waited for in user space, it comes back to see; the program there may be skipped */
	if (lock_of_futex(tctx->user_lock))
		tctx->user_lock = 0;
	if (tctx->token)
		donor_runnable(p);
}

/*
 * The cgroup of @p has no budget until @due. Its donors stay free to have it run, on this CPU if
 * that has nothing else to do.
 */
static __always_inline void task_park(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
				      struct cpu_ctx *cctx, u64 due, u64 enq_flags)
{
	tctx->swap_to = 0;
	vtime_join(tctx, cpu, cctx);
	park(p, tctx, cctx, cpu, due, enq_flags);
	if (donors_release(p, tctx, cpu))
		port_kick(cpu, PORT_KICK);
	tickless_interrupt(cctx, cpu);
}

/*
 * ops.enqueue(). @selected: ops.select_cpu() has looked for an idle CPU already.
 * False if there is no queue for it; the caller then has to take care of it.
 * @last: the CPU has nothing else to run, and does not pick again unless it is told to.
 * @came_back: the kernel did not move it where it was taken to.
 */
static __always_inline bool task_enqueue(struct task_struct *p, struct task_ctx *tctx,
					 u64 enq_flags, bool wakeup, bool selected, bool last,
					 bool came_back)
{
	s32 from = port_task_cpu(p), cpu = from, idle_cpu;
	bool sent_idle = false, with_donors;
	struct cpu_ctx *cctx = cpu_ctx_of(cpu);
	u64 due, now = port_now();
	u32 reach;

	task_runnable(p, tctx, now);
	/*
	 * The kernel may take a queued task to another CPU (move_queued_task()):
	 * ops.quiescent() is not called for that.
	 */
	queue_left(tctx, PLACE_LOCAL);
	due = task_due(p, tctx, now);
	if (cctx)
		tickless_clock(cctx);
	if (due && cctx) {
		task_park(p, tctx, cpu, cctx, due, enq_flags);
		return true;
	}
	/* one that executes cannot be moved: other CPUs would take it again and again */
	reach = came_back && port_core_runs(p) ? REACH_ONE : reach_of(p);
	if (!selected && reach != REACH_ONE) {
		idle_cpu = wakeup ? idle_claim_near(p, cpu) : idle_claim_preempted(p, cpu);
		if (idle_cpu >= 0) {
			sent_idle = idle_cpu != from;
			cpu = idle_cpu;
			stat_inc(STAT_ENQUEUE_IDLE);
		}
	}
	if (tctx->swap_to && !sent_idle && !wakeup && reach != REACH_ONE &&
	    port_may_run(p, tctx->swap_to - 1))
		cpu = tctx->swap_to - 1;
	tctx->swap_to = 0;
	if (cpu != from)
		cctx = cpu_ctx_of(cpu);
	if (!cctx)
		return false;
	vtime_join(tctx, cpu, cctx);
	/* not those that made themselves light: they have work that may wait */
	if (port_is_agent(p) && tctx->own_weight >= WEIGHT_NICE_0)
		vtime_favour(tctx, cctx);
	if (!wakeup && port_in_rcu(p))
		vtime_rcu(tctx, cctx);
	guard_note(cctx, tctx->vtime);
	runq_enter(tctx, cctx, cpu, reach, wakeup, now);
	stat_inc(STAT_ENQUEUE);
	queue_insert(p, cpu, reach, tctx->vtime, enq_flags);
	with_donors = donors_release(p, tctx, cpu);
	if (tickless_interrupt(cctx, cpu))
		return true;
	/*
	 * An idle CPU that the kernel has queued the task on is woken by it (wakeup_preempt());
	 * of one that we chose it does not know.
	 */
	/* ... nor of one where a task was parked, which something has changed for */
	if (sent_idle || (!wakeup && cctx->idle))
		port_kick(cpu, PORT_KICK_IDLE);
	else if (last)
		port_kick(cpu, PORT_KICK);
	else if (wakeup && cctx->running_since_ns)
		preempt_by_key(tctx, cctx, cpu, with_donors, now);
	return true;
}

/*
 * @pid begins to run, in its own context or in a donor's. What runs after a sleep is protected for a
 * moment; should it block in that, its turn goes on with the owner.
 */
static __always_inline void turn_begin(struct task_ctx *tctx, struct cpu_ctx *cctx, u32 pid,
				       u64 now)
{
	u32 turn = tctx->donor_pid ? tctx->donor_pid : pid;

	if (tctx->slept)
		cctx->awake_at_ns = now;
	else if (!tctx->donor_pid || cctx->turn_pid != turn)
		cctx->awake_at_ns = 0;
	cctx->turn_pid = turn;
	tctx->slept = 0;
}

/* ops.running() */
static __always_inline void task_running(struct task_struct *p, struct task_ctx *tctx,
					 struct cpu_ctx *cctx, s32 cpu)
{
	u64 now = port_switch_now(cpu);

	task_runnable(p, tctx, now);
	queue_left(tctx, PLACE_RUNNING);
	delay_end(p, tctx, now);
	unseen_runs(cctx, tctx, cpu);
	vtime_join(tctx, cpu, cctx);
	vtime_pulled(tctx, cctx, port_pid(p));
	tctx->charged_exec_ns = port_exec_ns(p);
	tctx->charged_at_ns = now;
	if (tctx->yields_to)
		yield_end(p, tctx);
	/* an exchange locks the bus, and mostly there is nothing */
	if (*(volatile u64 *)&tctx->lent_cost)
		vtime_use(tctx, lent_cost_now(tctx, __sync_lock_test_and_set(&tctx->lent_cost, 0)),
			  now);
	running_note(cctx, p, tctx, now);
	perf_note(cctx, cpu, now, true);
	tickless_begin(p, tctx, cctx, cpu);
	turn_begin(tctx, cctx, port_pid(p), now);
	idle_with_donors_set(cctx, false);
	if (cctx->idle) /* it was busy before we came, without an event */
		idle_changed(cctx, false);
	if (tctx->return_choice != RETURN_NONE)
		return_outcome(p, tctx, cpu);
}

/* @p runs no more. @runnable: it could go on. */
static __always_inline void task_off_cpu(struct task_struct *p, struct task_ctx *tctx,
					 struct cpu_ctx *cctx, s32 cpu, bool runnable, u64 now)
{
	charge(p, tctx, now);
	cctx->tickless = 0;
	perf_note(cctx, cpu, now, false);
	handoff_note(tctx, !runnable, now);
	tctx->place = PLACE_LOCAL;
	cctx->running_since_ns = 0;
	cctx->running_weight = 0;
	/*
	 * Preempted by another class with slice left, it would go back to the head
	 * of the local DSQ (put_prev_task_scx()): out of reach for donors and idle
	 * CPUs, and in its own context on a donor's slice. Without slice it is
	 * queued by its own key.
	 */
	if (runnable) {
		port_set_slice(p, 0);
		delay_begin(tctx, now);
	}
	/* if it can go on, its donors go with it to the queue that ops.enqueue() chooses */
	if (!runnable)
		donors_release(p, tctx, cpu);
	/*
	 * ops.dispatch() moves the clock only if something competes. A task that
	 * has the CPU to itself, and sleeps before its slice ends, takes the clock
	 * along here, else its key would run away from it.
	 */
	if (!nr_queued(cctx))
		clock_advance(cctx, key_min(tctx->vtime, donor_first_key(cpu)));
}

/* ops.stopping() of a task that could go on. Of another one ops.quiescent() comes at once, which does the same. */
static __always_inline void task_stopping(struct task_struct *p, struct task_ctx *tctx,
					  struct cpu_ctx *cctx, s32 cpu)
{
	task_off_cpu(p, tctx, cctx, cpu, true, port_now());
}

/*
 * ops.tick(): what burns its cgroup's cpu.max is charged now, not when its slice ends. Other CPUs use the
 * same budget meanwhile, and at a new period what has not been charged would be taken for budget left over.
 * The kernel ticks from another CPU, under the task's rq lock, where the tick is stopped (sched_tick_remote()).
 */
static __always_inline void task_tick(struct task_struct *p, struct task_ctx *tctx)
{
	struct cpu_ctx *cctx = cpu_ctx_of(port_task_cpu(p));
	bool tickless = cctx && cctx->tickless, limited = tctx->group && limits_any();
	u64 now;

	if (!tickless && !limited)
		return;
	now = port_now();
	charge(p, tctx, now);
	if (tickless) {
		running_note(cctx, p, tctx, now);
		clock_advance(cctx, tctx->vtime);
		if (is_wanted(cctx))
			port_set_slice(p, 0);
	}
	if (limited && task_due(p, tctx, now))
		port_set_slice(p, 0);
}

/* ops.quiescent(); @sleeps: it goes to sleep, as opposed to being moved */
static __always_inline void task_quiescent(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					   bool sleeps)
{
	struct cpu_ctx *cctx = tctx->place == PLACE_RUNNING ? cpu_ctx_of(cpu) : NULL;
	u64 lock, now = port_now();

	if (cctx)
		task_off_cpu(p, tctx, cctx, cpu, false, now);
	else if (tctx->place == PLACE_ASLEEP && tctx->token)
		donor_runnable(p); /* it woke where nobody told us, and has not run since */
	queue_left(tctx, PLACE_ASLEEP);
	delay_end(p, tctx, now);
	tctx->slept = sleeps;
	lock = sleeps ? edge_lock(p, tctx) : 0;
	if (!lock) {
		group_count(tctx, 0);
		return;
	}
	donor_block(p, tctx, lock, cpu);
	/* its context competes on; where donors are only observed it does not */
	if (!port_donating())
		group_count(tctx, 0);
	/* tasks that came to wait for it since ops.stopping() have a longer chain to walk now */
	attached_release(tctx, port_pid(p), cpu);
}

/* @p is ours from now on; its key begins at the clock of the CPU that it first joins */
static __always_inline void task_enable(struct task_struct *p, struct task_ctx *tctx)
{
	/* what it contended for in another class it would not be seen to get in this one */
	tctx->contended_lock = 0;
	tctx->user_lock = 0;
	donor_wake(p, tctx);
	tctx->vtime_cpu = -1;
	tctx->own_weight = port_weight(p);
	tctx->weight = group_weigh(tctx);
	tctx->pace = 0;
	tctx->place = PLACE_ASLEEP;
	tctx->charged_exec_ns = port_exec_ns(p);
}

/* @p leaves for another class, or exits: nothing of it may stay behind */
static __always_inline void task_disable(struct task_struct *p, struct task_ctx *tctx)
{
	if (tctx->yields_to)
		yield_end(p, tctx);
	donor_wake(p, tctx);
	tctx->return_choice = RETURN_NONE;
	queue_left(tctx, PLACE_OTHER);
	delay_end(p, tctx, port_now());
	donors_release(p, tctx, port_task_cpu(p));
	group_count(tctx, 0);
}

/*
 * A task of a higher class, the current one on @cpu, is about to sleep on a mutex.
 * It passes none of the callbacks above.
 */
static __always_inline void task_contended(struct task_struct *p, struct task_ctx *tctx, s32 cpu,
					   u32 urgency)
{
	u64 seq;

	if (tctx->token)
		return; /* another lock type's probe was first */
	seq = donor_begin(p, tctx, edge_lock(p, tctx), cpu, urgency);
	if (port_donating())
		donor_block_urgent(port_pid(p), cpu, seq);
	else
		donor_put(port_pid(p), seq, cpu, 0);
	/* it became ours meanwhile: nothing would end this wait */
	if (*(volatile u32 *)&tctx->place != PLACE_OTHER)
		donor_wake(p, tctx);
}

/* It has the lock, or was interrupted. */
static __always_inline void task_contention_over(struct task_struct *p, struct task_ctx *tctx)
{
	s32 owner_cpu;

	if (!tctx->token || !tctx->wait_urgency)
		return;
	owner_cpu = donor_wake(p, tctx);
	if (owner_cpu >= 0)
		donated_slice_end(p, owner_cpu);
}

#endif /* PROXY_CORE_TASK_H */
