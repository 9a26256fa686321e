/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The host's side of core/ports.h, and plain functions around the policy. An
 * engine is used by one thread at a time; the one whose callback runs stands in
 * `host` meanwhile.
 */
#include "types.h"

#include <stdlib.h>
#include <string.h>

struct bpf_spin_lock {
	u32 val;
};

struct task_struct {
	u32 pid;
};

#include "host.h"
#include "ports.h"
#include "key.h"
#include "heap.h"
#include "token.h"
#include "walk.h"
#include "return.h"
#include "../place/state.h"
#include "../place/pace.h"
#include "../group/state.h"
#include "state.h"

#define HOST_CPUS_MAX 64
#define HOST_GROUPS_MAX 64

struct host_engine {
	struct proxy_config config;
	u32 nr_tasks;
	u32 donating;
	u64 stats[NR_PROXY_STATS];
	struct cpu_ctx cpus[HOST_CPUS_MAX];
	struct domain domains[DOMAINS_MAX];
	struct machine machine;
	struct group_table group_table;
	struct group groups[HOST_GROUPS_MAX];
	struct group_load group_loads[HOST_CPUS_MAX][HOST_GROUPS_MAX];
	struct donor_queue *queues;
	struct task_struct *tasks; /* [pid] */
	struct task_ctx *ctxs;
	struct wait_hint *hints;
	struct lock_slot slots[LOCK_SLOTS];
	struct return_hint return_hints[NR_LOCK_TYPES];
};

static __thread struct host_engine *host;
static __thread const struct host_ports *ports;

#define cfg (host->config)
#define PORT(name, ...) ports->name(ports->machine, ##__VA_ARGS__)

static struct task_struct *port_task_get(u32 pid)
{
	return pid && pid < host->nr_tasks && PORT(alive, pid) ? &host->tasks[pid] : NULL;
}

#define port_task_put(p) ((void)(p))
#define port_pid(p) ((p)->pid)
#define port_task_cpu(p) PORT(task_cpu, (p)->pid)
#define port_exec_ns(p) ((u64)PORT(exec_ns, (p)->pid))
#define port_weight(p) weight_of_nice(PORT(nice, (p)->pid))
#define port_group_shares(g, nr) ((void)(g), PORT(group_shares, nr))
#define port_group_limit(g, nr, limit) \
	((void)(g),                    \
	 PORT(group_limit, nr, &(limit)->quota_ns, &(limit)->period_ns, &(limit)->burst_ns))
#define queue_rekey(cpu, reach, key) PORT(rekey, cpu, reach, key)
#define port_may_run(p, cpu) (PORT(may_run, (p)->pid, cpu) != 0)
#define port_pinned(p) (PORT(pinned, (p)->pid) != 0)
#define port_unrestricted(p) (PORT(unrestricted, (p)->pid) != 0)
#define port_user(p) PORT(user, (p)->pid)
/* the model knows no RCU */
#define port_in_rcu(p) ((void)(p), false)
#define port_exiting(p) ((void)(p), false)
#define port_is_agent(p) ((p)->pid == cfg.agent_tgid)
#define port_core_runs(p) (PORT(core_runs, (p)->pid) != 0)
#define port_core_ran_ns(p, tctx) (port_exec_ns(p) - (tctx)->charged_exec_ns)
#define port_set_slice(p, ns) PORT(set_slice, (p)->pid, ns)
#define port_donating() (host->donating != 0)
#define port_now() ((u64)PORT(now))
#define port_switch_now(cpu) ((void)(cpu), port_now())
#define port_monotonic() port_now()
#define port_kick(cpu, how) PORT(kick, cpu, how)
#define port_hrtick(cpu, ns) PORT(start_hrtick, cpu, ns)
#define port_perf_now(cpu) ((void)(cpu), PERF_ONE)
#define port_perf_set(cpu, perf) ((void)(cpu), (void)(perf))
#ifndef queue_lock /* tests/interleave has one */
#define queue_lock(q) ((void)(q))
#define queue_unlock(q) ((void)(q))
#endif
#define queue_head(cpu, reach, pid) ((u64)PORT(head, cpu, reach, pid))
#define queue_head_take(from, reach, cpu) (PORT(head_take, from, reach, cpu) != 0)
#define queue_insert(p, cpu, reach, key, flags) \
	((void)(flags), PORT(insert, (p)->pid, cpu, reach, key, cfg.slice_ns))
#define owner_move(o, from, reach, cpu) \
	((enum moved)PORT(move_task, (o)->pid, from, reach, cpu, cfg.slice_ns))
#define edge_lock(p, tctx) ((void)(tctx), (u64)PORT(blocked_on, (p)->pid))
#define edge_owner_pid(p, tctx, lock) ((void)(tctx), PORT(owner_of, lock))
#define edge_first_waiter_pid(lock) PORT(first_waiter_of, lock)
#define edge_candidates(p, tctx, lock) ((void)(p), (void)(tctx), PORT(candidates_of, lock))
#define edge_candidate_pid(p, tctx, lock, nr) \
	((void)(p), (void)(tctx), PORT(candidate_of, lock, nr))
#define edge_releaser_proven(p, tctx, lock, pid) \
	((void)(p), (void)(tctx), (void)(pid), PORT(wakes_after_release, lock) != 0)
/* the model knows one process */
#define edge_candidate_proven(p, pid) ((void)(p), (void)(pid), true)
#define edge_candidate_points(tctx, lock, pid) ((void)(tctx), PORT(points_at, pid, lock) != 0)
#define stat_inc(stat) ((void)host->stats[stat]++)
#define stat_add(stat, n) ((void)(host->stats[stat] += (n)))

static struct task_ctx *task_ctx_of(struct task_struct *p)
{
	return p ? &host->ctxs[p->pid] : NULL;
}

static s32 port_this_cpu(void)
{
	return PORT(this_cpu);
}

static struct task_struct *port_current(void)
{
	return port_task_get(PORT(current, port_this_cpu()));
}

static struct cpu_ctx *cpu_ctx_of(s32 cpu)
{
	return cpu >= 0 && (u32)cpu < cfg.nr_cpu_ids ? &host->cpus[cpu] : NULL;
}

static struct domain *domain_of(u32 nr)
{
	return nr < DOMAINS_MAX ? &host->domains[nr] : NULL;
}

static struct machine *machine_of(void)
{
	return &host->machine;
}

static struct group_table *group_table_of(void)
{
	return &host->group_table;
}

static struct group *group_of(u32 nr)
{
	return nr < HOST_GROUPS_MAX ? &host->groups[nr] : NULL;
}

static struct group_load *group_load_on(u32 nr, s32 cpu)
{
	return cpu_ctx_of(cpu) && group_of(nr) ? &host->group_loads[cpu][nr] : NULL;
}

static struct group_load *group_load_here(u32 nr)
{
	return group_load_on(nr, port_this_cpu());
}

static struct donor_queue *donor_queue_of(s32 cpu)
{
	return cpu_ctx_of(cpu) ? &host->queues[cpu] : NULL;
}

static struct lock_slot *lock_slot_at(u32 nr)
{
	return nr < LOCK_SLOTS ? &host->slots[nr] : NULL;
}

static struct wait_hint *hint_of(u32 pid)
{
	return pid < host->nr_tasks && host->hints[pid].kind ? &host->hints[pid] : NULL;
}

static struct return_hint *return_hint_of(u32 type)
{
	return &host->return_hints[type];
}

static void event_wait(u32 kind, s32 cpu, struct task_struct *p, const struct task_ctx *tctx,
		       u32 other, u64 lock, u64 value, u64 inverted_ns)
{
	struct proxy_event e = {
		.time_ns = port_now(),
		.lock = lock,
		.value = value,
		.kind = kind,
		.cpu = (u32)cpu,
		.pid = p->pid,
		.other = other,
		.inverted_ns = inverted_ns,
	};

	(void)tctx;
	if (cfg.events)
		PORT(event, &e);
}

static void event(u32 kind, s32 cpu, u32 pid, u32 other, u64 lock, u64 value)
{
	event_wait(kind, cpu, &host->tasks[pid], NULL, other, lock, value, 0);
}

static void event_gave(u32 donor_pid, u32 owner_pid, u64 ns)
{
	event(EVENT_GAVE, port_this_cpu(), donor_pid, owner_pid, 0, ns);
}

#include "policy.h"

struct host_engine *host_engine_new(const struct proxy_config *config, unsigned int nr_tasks)
{
	struct host_engine *e = NULL;
	u32 cpu, pid;

	if (config->nr_cpu_ids > HOST_CPUS_MAX || posix_memalign((void **)&e, 64, sizeof(*e)))
		return NULL;
	memset(e, 0, sizeof(*e));
	e->config = *config;
	e->nr_tasks = nr_tasks;
	e->donating = 1;
	e->queues = calloc(config->nr_cpu_ids, sizeof(*e->queues));
	e->tasks = calloc(nr_tasks, sizeof(*e->tasks));
	e->ctxs = calloc(nr_tasks, sizeof(*e->ctxs));
	e->hints = calloc(nr_tasks, sizeof(*e->hints));
	if (!e->queues || !e->tasks || !e->ctxs || !e->hints) {
		host_engine_free(e);
		return NULL;
	}
	host = e;
	limits_init();
	for (cpu = 0; cpu < config->nr_cpu_ids; cpu++)
		heap_init(&e->queues[cpu].heap);
	for (pid = 0; pid < nr_tasks; pid++) {
		e->tasks[pid].pid = pid;
		e->ctxs[pid].vtime_cpu = -1;
		e->ctxs[pid].weight = WEIGHT_NICE_0;
		e->ctxs[pid].own_weight = WEIGHT_NICE_0;
		e->ctxs[pid].place = PLACE_OTHER;
	}
	return e;
}

void host_engine_free(struct host_engine *e)
{
	if (!e)
		return;
	free(e->queues);
	free(e->tasks);
	free(e->ctxs);
	free(e->hints);
	free(e);
}

#define ENTER(e, p) (host = (e), ports = (p))
#define TASK(e, pid) (&(e)->tasks[pid]), (&(e)->ctxs[pid])

void host_enable(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	ENTER(e, p);
	task_enable(TASK(e, pid));
}

void host_group_begin(struct host_engine *e, unsigned int nr, unsigned int parent,
		      unsigned int shares)
{
	host = e;
	e->groups[nr].cgroup = nr;
	group_begin(&e->groups[nr], parent, shares);
	e->group_table.any = 1;
}

void host_group_move(struct host_engine *e, const struct host_ports *p, unsigned int pid,
		     unsigned int group)
{
	ENTER(e, p);
	group_move(&e->ctxs[pid], group);
}

void host_disable(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	ENTER(e, p);
	task_disable(TASK(e, pid));
}

void host_place(struct host_engine *e, int cpu, unsigned int domain, unsigned int bit,
		int first_of_pair)
{
	struct domain *d = &e->domains[domain];

	e->cpus[cpu].domain = domain;
	e->cpus[cpu].cache_id = domain;
	e->cpus[cpu].bit = bit;
	e->cpus[cpu].idle = 1;
	d->cpus |= BIT64(bit);
	d->idle |= BIT64(bit);
	d->cpu_of[bit] = (unsigned short)cpu;
	if (first_of_pair)
		d->pairs |= BIT64(bit);
	e->machine.idle |= BIT64(domain);
}

void host_big(struct host_engine *e, unsigned int domain, host_u64 big)
{
	e->domains[domain].big = big;
	e->machine.big |= BIT64(domain) & -(host_u64) !!big;
}

void host_nohz_full(struct host_engine *e, int cpu)
{
	e->cpus[cpu].nohz_full = 1;
}

void host_near(struct host_engine *e, unsigned int domain, host_u64 near)
{
	e->domains[domain].near = near;
}

int host_select_cpu(struct host_engine *e, const struct host_ports *p, unsigned int pid,
		    int prev_cpu, int kind)
{
	ENTER(e, p);
	return task_select_cpu(TASK(e, pid), prev_cpu, (enum wake_kind)kind);
}

void host_update_idle(struct host_engine *e, const struct host_ports *p, int cpu, int idle)
{
	ENTER(e, p);
	if (cpu_ctx_of(cpu))
		idle_changed(cpu_ctx_of(cpu), idle != 0);
}

void host_enqueue(struct host_engine *e, const struct host_ports *p, unsigned int pid, int wakeup,
		  int selected, int last, int came_back)
{
	ENTER(e, p);
	task_enqueue(TASK(e, pid), 0, wakeup, selected, last, came_back);
}

void host_dispatch(struct host_engine *e, const struct host_ports *p, int cpu, unsigned int prev)
{
	ENTER(e, p);
	pick(cpu, prev ? &e->tasks[prev] : NULL);
}

void host_running(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	s32 cpu;

	ENTER(e, p);
	cpu = PORT(task_cpu, pid);
	if (cpu_ctx_of(cpu))
		task_running(TASK(e, pid), cpu_ctx_of(cpu), cpu);
}

void host_stopping(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	s32 cpu;

	ENTER(e, p);
	cpu = PORT(task_cpu, pid);
	if (cpu_ctx_of(cpu))
		task_stopping(TASK(e, pid), cpu_ctx_of(cpu), cpu);
}

void host_quiescent(struct host_engine *e, const struct host_ports *p, unsigned int pid, int sleeps)
{
	ENTER(e, p);
	task_quiescent(TASK(e, pid), PORT(task_cpu, pid), sleeps);
}

void host_tick(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	ENTER(e, p);
	task_tick(TASK(e, pid));
	tick(PORT(task_cpu, pid));
}

void host_hrtick(struct host_engine *e, const struct host_ports *p, int cpu)
{
	u64 again;

	ENTER(e, p);
	again = hrtick(cpu);
	if (again)
		port_hrtick(cpu, again);
}

void host_yield(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	ENTER(e, p);
	task_yield(TASK(e, pid));
}

int host_yield_to(struct host_engine *e, const struct host_ports *p, unsigned int pid,
		  unsigned int to)
{
	ENTER(e, p);
	return task_yield_to(TASK(e, pid), TASK(e, to));
}

void host_timer(struct host_engine *e, const struct host_ports *p)
{
	ENTER(e, p);
	kick_parked(port_now());
}

void host_contention_begin(struct host_engine *e, const struct host_ports *p, unsigned int pid,
			   int cpu)
{
	ENTER(e, p);
	task_contended(TASK(e, pid), cpu, PORT(urgency, pid));
}

void host_contention_end(struct host_engine *e, const struct host_ports *p, unsigned int pid)
{
	ENTER(e, p);
	task_contention_over(TASK(e, pid));
}

void host_set_donating(struct host_engine *e, int on)
{
	e->donating = on != 0;
}

host_u64 host_delay(const struct host_engine *e, unsigned int pid)
{
	return e->ctxs[pid].delay_ns;
}

host_u64 host_stat(const struct host_engine *e, unsigned int stat)
{
	return stat < NR_PROXY_STATS ? e->stats[stat] : 0;
}

host_u64 host_clock(const struct host_engine *e, int cpu)
{
	return e->cpus[cpu].clock;
}

host_u64 host_key(const struct host_engine *e, unsigned int pid)
{
	return e->ctxs[pid].vtime;
}

void host_donor(const struct host_engine *e, unsigned int pid, struct host_donor *d)
{
	const struct task_ctx *ctx = &e->ctxs[pid];

	d->token = ctx->token;
	d->wait_seq = ctx->wait_seq;
	d->key = ctx->wait_key;
	d->yields_to = ctx->yields_to;
}

unsigned int host_queue_length(const struct host_engine *e, int cpu)
{
	return e->queues[cpu].heap.nr;
}

void host_set_wait_hint(struct host_engine *e, unsigned int pid, const struct wait_hint *h)
{
	e->hints[pid] = *h;
}

struct donor_heap *host_heap_new(void)
{
	struct donor_heap *h = calloc(1, sizeof(*h));

	if (h)
		heap_init(h);
	return h;
}

void host_heap_free(struct donor_heap *h)
{
	free(h);
}

int host_heap_push(struct donor_heap *h, host_u64 key, host_u64 seq, unsigned int pid)
{
	return heap_push(h, key, seq, pid);
}

int host_heap_remove(struct donor_heap *h, unsigned int idx, host_u64 seq, unsigned int pid)
{
	return heap_remove(h, idx, seq, pid);
}

/* pool index of the first entry, -1 when there is none */
int host_heap_top(const struct donor_heap *h)
{
	return h->nr ? (int)heap_idx(h, 0) : -1;
}

host_u64 host_heap_top_key(const struct donor_heap *h)
{
	return h->top_key;
}

host_u64 host_key_cost(host_u64 ns, unsigned int weight)
{
	return key_cost(ns, weight);
}

unsigned int host_perf_after(unsigned int perf, host_u64 busy_ns, host_u64 elapsed_ns,
			     unsigned int cur)
{
	return perf_after(perf, busy_ns, elapsed_ns, cur);
}

host_u64 host_key_floor(host_u64 key, host_u64 clock, host_u64 lag)
{
	return key_floor(key, clock, lag);
}

host_u64 host_key_ceiling(host_u64 key, host_u64 clock, host_u64 starve_ns, host_u64 load)
{
	return key_ceiling(key, clock, starve_ns, load);
}

host_u64 host_key_min(host_u64 a, host_u64 b)
{
	return key_min(a, b);
}

unsigned int host_weight_of_nice(int nice)
{
	return weight_of_nice(nice);
}

host_u64 host_token_make(host_u64 seq, unsigned int kind, unsigned int place)
{
	return token_make(seq, (enum token_kind)kind, place);
}

unsigned int host_token_kind(host_u64 token)
{
	return token_kind(token);
}

/* Walk pids[0] -> pids[1] -> ...; the number of hops, *end says why it ended. */
unsigned int host_walk(const unsigned int *pids, unsigned int nr, unsigned int hops_max, int *end)
{
	struct walk w;
	unsigned int i;

	walk_begin(&w, pids[0]);
	*end = WALK_GOES_ON;
	for (i = 1; i < nr && *end == WALK_GOES_ON; i++)
		*end = walk_hop(&w, pids[i], hops_max);
	return w.hops;
}

host_u64 host_donated_before_wake(host_u64 delta_ns, host_u64 charged_at_ns, host_u64 woke_at_ns)
{
	return donated_before_wake(delta_ns, charged_at_ns, woke_at_ns);
}

unsigned int host_return_choose(const struct host_return_facts *f, unsigned int policy,
				host_u64 cold_ns, host_u64 margin_ns)
{
	struct return_facts facts = {
		.waited_ns = f->waited_ns,
		.owner_runs = f->owner_runs,
		.owner_allowed = f->owner_allowed,
		.home_busy = f->home_busy,
		.shares_cache = f->shares_cache,
		.home_lead = f->home_lead,
		.owner_lead = f->owner_lead,
		.owner_bias_ns = f->owner_bias_ns,
	};

	return return_choose(&facts, policy, cold_ns, margin_ns);
}
