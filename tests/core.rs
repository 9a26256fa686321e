// SPDX-License-Identifier: GPL-2.0-only
//! The pure C of `bpf/core`, compiled for the host, against obvious models.

mod engine;

use std::collections::BTreeMap;

use engine::sys::{
    donor_heap, host_heap_free, host_heap_new, host_heap_push, host_heap_remove, host_heap_top,
    host_heap_top_key, host_return_choose, host_return_facts, host_walk,
};
use engine::{
    donated_before_wake, key_ceiling, key_cost, key_floor, key_min, token_kind, token_make,
    weight_of_nice,
};
use scx_proxy::abi;

const KEY_NONE: u64 = u64::MAX;
const CAPACITY: usize = abi::DONORS_PER_CPU as usize;

/// A heap of the C core; freed when dropped.
struct Heap(*mut donor_heap);

impl Heap {
    fn new() -> Self {
        // SAFETY: no preconditions; null is checked.
        let heap = unsafe { host_heap_new() };
        assert!(!heap.is_null());
        Heap(heap)
    }
    fn push(&mut self, key: u64, seq: u64, pid: u32) -> Option<u32> {
        // SAFETY: the pointer is a live heap, held exclusively.
        u32::try_from(unsafe { host_heap_push(self.0, key, seq, pid) }).ok()
    }
    fn remove(&mut self, idx: u32, seq: u64, pid: u32) -> bool {
        // SAFETY: as above; any index is masked by the callee.
        unsafe { host_heap_remove(self.0, idx, seq, pid) == 1 }
    }
    fn top(&self) -> Option<u32> {
        // SAFETY: the pointer is a live heap.
        u32::try_from(unsafe { host_heap_top(self.0) }).ok()
    }
    fn top_key(&self) -> u64 {
        // SAFETY: the pointer is a live heap.
        unsafe { host_heap_top_key(self.0) }
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // SAFETY: made by host_heap_new(), not used after this.
        unsafe { host_heap_free(self.0) }
    }
}

/// xorshift64: the same steps on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

#[test]
fn heap_agrees_with_a_sorted_map_over_random_steps() {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    let mut heap = Heap::new();
    // pool index -> (key, seq)
    let mut model: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    // most entries are of user 1, who may have half of the heap
    let user = |seq: u64| usize::from(seq.is_multiple_of(5)) + 1;
    let who = |seq: u64| seq as u32 | (user(seq) as u32) << 24;
    let (mut of_user, mut refused) = ([0; 3], 0);
    // keys around the wrap: order must come from the signed difference
    let base = u64::MAX - 5_000;
    for seq in 1..=400_000_u64 {
        if random.next(100) < 52 {
            let key = base.wrapping_add(random.next(10_000));
            match heap.push(key, seq, who(seq)) {
                Some(idx) => {
                    let old = model.insert(idx, (key, seq));
                    assert!(old.is_none(), "index {idx} reused");
                    of_user[user(seq)] += 1;
                    assert!(
                        of_user[user(seq)] <= CAPACITY / 2,
                        "one user has more than half"
                    );
                }
                None if of_user[user(seq)] == CAPACITY / 2 => refused += 1,
                None => assert_eq!(model.len(), CAPACITY),
            }
        } else if let Some(nth) = model.len().checked_sub(1) {
            let nth = random.next(nth as u64 + 1) as usize;
            let (&idx, &(_, seq)) = model.iter().nth(nth).expect("in range");
            let pid = seq as u32;
            assert!(
                !heap.remove(idx, seq + 1, pid),
                "removed with a foreign wait number"
            );
            assert!(!heap.remove(idx, seq, pid + 1), "removed for another task");
            assert!(heap.remove(idx, seq, pid));
            assert!(!heap.remove(idx, seq, pid), "removed twice");
            model.remove(&idx);
            of_user[user(seq)] -= 1;
        }
        // of equal keys the smaller pid of a user comes first
        let in_order = |(key, seq): &(u64, u64)| (key.wrapping_sub(base), who(*seq));
        let first = model.values().map(in_order).min();
        match heap.top() {
            Some(idx) => {
                let (key, _) = model[&idx];
                assert_eq!(Some(in_order(&model[&idx])), first);
                let shown = if key == KEY_NONE { KEY_NONE - 1 } else { key };
                assert_eq!(heap.top_key(), shown);
            }
            None => assert_eq!((heap.top_key(), first), (KEY_NONE, None)),
        }
    }
    assert!(refused > 0, "no call asked for more than half");
}

#[test]
fn keys_cost_by_weight() {
    const NICE_0: u32 = 1024 << 10;
    assert_eq!(weight_of_nice(0), NICE_0);
    assert_eq!(
        (weight_of_nice(-20), weight_of_nice(19)),
        (88761 << 10, 15 << 10)
    );
    assert_eq!(weight_of_nice(20), NICE_0, "out of range: as nice 0");
    assert_eq!(key_cost(3_000_000, NICE_0), 3_000_000);
    assert_eq!(key_cost(3_000_000, 15 << 10), 204_800_000);
    assert_eq!(key_cost(7, 0), 7, "no division by zero");
}

#[test]
fn keys_are_bounded_on_both_sides_of_the_clock_also_where_it_wraps() {
    for clock in [0_u64, 10_000, u64::MAX - 50] {
        let ahead = |ns: u64| clock.wrapping_add(ns);
        let behind = |ns: u64| clock.wrapping_sub(ns);
        assert_eq!(key_floor(behind(500), clock, 100), behind(100));
        assert_eq!(key_floor(behind(50), clock, 100), behind(50));
        assert_eq!(key_floor(ahead(500), clock, 100), ahead(500));
        // at twice nice 0 of load, 1000 ns of waiting pay for 500 of virtual time
        assert_eq!(key_ceiling(ahead(900), clock, 1000, 2048 << 10), ahead(500));
        assert_eq!(key_ceiling(ahead(400), clock, 1000, 2048 << 10), ahead(400));
        // 2, since 0 - 1 is KEY_NONE
        assert_eq!(key_min(ahead(2), behind(2)), behind(2));
    }
    assert_eq!(key_min(KEY_NONE, 5), 5);
    assert_eq!(key_min(5, KEY_NONE), 5);
}

#[test]
fn tokens_keep_their_parts_apart() {
    for kind in 0..=5 {
        let token = token_make(u64::MAX, kind, u32::MAX);
        assert_eq!(token_kind(token), kind);
        assert_eq!(token as u32, u32::MAX);
        assert_eq!(token >> 40, 0xff_ffff);
    }
}

fn walk(pids: &[u32], hops_max: u32) -> (u32, i32) {
    let mut end = 0;
    let nr = u32::try_from(pids.len()).expect("short");
    // SAFETY: pids is valid for nr elements, end for one write.
    let hops = unsafe { host_walk(pids.as_ptr(), nr, hops_max, &mut end) };
    (hops, end)
}

#[test]
fn walks_end_in_cycles_of_any_length_and_at_the_bound() {
    const GOES_ON: i32 = 0;
    const CYCLE: i32 = 1;
    const TRUNCATED: i32 = 2;
    let straight: Vec<u32> = (1..=40).collect();
    assert_eq!(walk(&straight[..17], 16), (16, GOES_ON));
    assert_eq!(walk(&straight, 16), (17, TRUNCATED));
    assert_eq!(walk(&straight, 4), (5, TRUNCATED));
    for tail in 0..4_u32 {
        for length in 1..=4_u32 {
            let pids: Vec<u32> = (0..40)
                .map(|i| {
                    if i < tail {
                        100 + i
                    } else {
                        1 + (i - tail) % length
                    }
                })
                .collect();
            let (hops, end) = walk(&pids, 16);
            assert_eq!(end, CYCLE, "tail {tail} length {length} ended after {hops}");
        }
    }
}

#[test]
fn who_woke_pays_what_ran_before() {
    // charged at 100, 50 ns ran, so until 150
    assert_eq!(donated_before_wake(50, 100, 130), 30);
    assert_eq!(
        donated_before_wake(50, 100, 100),
        0,
        "woke at the last charge"
    );
    assert_eq!(donated_before_wake(50, 100, 90), 0, "woke before it");
    assert_eq!(
        donated_before_wake(50, 100, 400),
        50,
        "no more than what ran"
    );
}

const RETURN_HOME: u32 = abi::return_choice_RETURN_HOME;
const RETURN_OWNER: u32 = abi::return_choice_RETURN_OWNER;
const AUTO: u32 = 0;
const HOME: u32 = 1;
const OWNER: u32 = 2;

/// The choice with caches cold after 5000 ns and warm ones worth 1000.
fn returns(policy: u32, change: impl FnOnce(&mut host_return_facts)) -> u32 {
    let mut facts = host_return_facts {
        waited_ns: 9_000,
        home_lead: 0,
        owner_lead: 500,
        owner_bias_ns: 0,
        owner_runs: 1,
        owner_allowed: 1,
        home_busy: 1,
        shares_cache: 0,
    };
    change(&mut facts);
    // SAFETY: facts is valid for the call.
    unsafe { host_return_choose(&facts, policy, 5_000, 1_000) }
}

#[test]
fn return_goes_where_the_donor_runs_soonest() {
    assert_eq!(returns(AUTO, |_| ()), RETURN_OWNER);
    assert_eq!(returns(AUTO, |f| f.owner_lead = 0), RETURN_HOME, "a tie");
    assert_eq!(returns(AUTO, |f| f.home_lead = 900), RETURN_HOME);
    assert_eq!(returns(AUTO, |f| f.home_busy = 0), RETURN_HOME);
    assert_eq!(returns(AUTO, |f| f.owner_bias_ns = 600), RETURN_HOME);
    assert_eq!(returns(AUTO, |f| f.owner_bias_ns = 400), RETURN_OWNER);
}

#[test]
fn return_stays_with_warm_caches() {
    assert_eq!(returns(AUTO, |f| f.waited_ns = 4_999), RETURN_HOME);
    assert_eq!(returns(AUTO, |f| f.waited_ns = 5_000), RETURN_OWNER);
    let shared = |f: &mut host_return_facts| (f.waited_ns, f.shares_cache) = (10, 1);
    assert_eq!(returns(AUTO, shared), RETURN_OWNER);
    let far_ahead = |f: &mut host_return_facts| (f.waited_ns, f.owner_lead) = (10, 1_001);
    assert_eq!(returns(AUTO, far_ahead), RETURN_OWNER);
}

#[test]
fn return_obeys_the_flag_and_affinity() {
    assert_eq!(returns(HOME, |_| ()), RETURN_HOME);
    assert_eq!(returns(OWNER, |f| f.owner_lead = -9_000), RETURN_OWNER);
    for policy in [AUTO, HOME, OWNER] {
        assert_eq!(returns(policy, |f| f.owner_allowed = 0), RETURN_HOME);
        assert_eq!(returns(policy, |f| f.owner_runs = 0), RETURN_HOME);
    }
}

/// Demand rises within a window, falls over several, and is all that there is for a CPU without idle time.
#[test]
fn demand_follows_use() {
    const MS: u64 = 1_000_000;
    // before a window has passed nothing changes
    assert_eq!(engine::perf_after(700, 0, 15 * MS, 1024), 700);
    assert_eq!(engine::perf_after(100, 8 * MS, 16 * MS, 1024), 512);
    // at half its speed it did half as much
    assert_eq!(engine::perf_after(100, 8 * MS, 16 * MS, 512), 256);
    assert_eq!(engine::perf_after(100, 16 * MS, 16 * MS, 300), 1024);
    // an eighth of the way down in a window, all of it after eight
    assert_eq!(engine::perf_after(1024, 0, 16 * MS, 1024), 896);
    assert_eq!(engine::perf_after(1024, 0, 128 * MS, 1024), 0);
    // time that went back, or no time at all
    assert_eq!(engine::perf_after(1024, 5 * MS, 0, 1024), 1024);
    assert_eq!(engine::perf_after(0, u64::MAX / 2048, u64::MAX, 1024), 0);
}
