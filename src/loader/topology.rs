// SPDX-License-Identifier: GPL-2.0-only
//! Which CPUs placement sees as near each other: the domains of `bpf/place/state.h`.
//!
//! A domain is a last-level cache, where that has a handful of CPUs or more. Caches of fewer
//! CPUs are put together, by NUMA node: an idle CPU that looks for work looks at a word per
//! domain, and shall not look at many. Domains hold `DOMAIN_CPUS` CPUs at most.
//! Pure: what is online comes from the caller.

use crate::abi;

const CPUS_MAX: usize = abi::DOMAIN_CPUS as usize;
const DOMAINS_MAX: usize = abi::DOMAINS_MAX as usize;

/// Caches of fewer CPUs than that share a domain with others of their node.
const CPUS_MIN: usize = 4;

/// Capacity of the fastest CPU.
pub const CAPACITY_MAX: u32 = 1024;

/// An online CPU. Ids of cores and caches need only tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnlineCpu {
    /// NUMA node.
    pub node: u32,
    /// Last-level cache.
    pub cache: u32,
    /// Core, of which it is a thread.
    pub core: u32,
    /// Its number.
    pub cpu: u32,
    /// Its greatest speed, as a part of `CAPACITY_MAX`.
    pub capacity: u32,
}

/// CPUs of one domain, in the order of their bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domain {
    /// Their numbers; threads of a core are neighbours.
    pub cpus: Vec<u32>,
    /// Bits of CPUs whose neighbour above is the other thread of their core.
    pub pairs: u64,
    /// Domains of the same node, itself included.
    pub near: u64,
    /// Bits of CPUs of the larger capacity; not one is set if all are alike.
    pub big: u64,
}

/// The domains of a machine with these CPUs online; `None` if it has more than there is room for.
pub fn domains(online: &[OnlineCpu]) -> Option<Vec<Domain>> {
    let mut online = online.to_vec();
    online.sort_unstable();
    online.dedup_by_key(|c| c.cpu);
    let mut least = CPUS_MIN;
    while least <= CPUS_MAX {
        let groups = merge(split(&online), least);
        if groups.len() <= DOMAINS_MAX {
            return Some(make(&groups, big_above(&online)));
        }
        least *= 2;
    }
    // more nodes than domains: what stands next to each other, whatever it shares
    let groups: Vec<_> = online.chunks(CPUS_MAX).map(<[_]>::to_vec).collect();
    (groups.len() <= DOMAINS_MAX).then(|| make(&groups, big_above(&online)))
}

/// The capacity above which a CPU is big. CPUs of one kind differ too, by how well each turned out: that
/// is no reason to leave warm caches, and `None`.
fn big_above(online: &[OnlineCpu]) -> Option<u32> {
    let least = online.iter().map(|c| c.capacity).min()?;
    let most = online.iter().map(|c| c.capacity).max()?;
    // scx_utils tells big cores from others by the same gap
    (most * 10 >= least * 13 && most > least).then_some((least + most) / 2)
}

/// Runs of CPUs with the same cache, none larger than a domain; cores stay whole.
fn split(online: &[OnlineCpu]) -> Vec<Vec<OnlineCpu>> {
    let same_core =
        |a: &OnlineCpu, b: &OnlineCpu| (a.node, a.cache, a.core) == (b.node, b.cache, b.core);
    let mut groups: Vec<Vec<OnlineCpu>> = Vec::new();
    for core in online
        .chunk_by(same_core)
        .flat_map(|core| core.chunks(CPUS_MAX))
    {
        let fits = |group: &Vec<OnlineCpu>| {
            (group[0].node, group[0].cache) == (core[0].node, core[0].cache)
                && group.len() + core.len() <= CPUS_MAX
        };
        match groups.last_mut().filter(|group| fits(group)) {
            Some(group) => group.extend(core),
            None => groups.push(core.to_vec()),
        }
    }
    groups
}

/// Groups of fewer than `least` CPUs join their neighbour of the same node.
fn merge(groups: Vec<Vec<OnlineCpu>>, least: usize) -> Vec<Vec<OnlineCpu>> {
    let mut merged: Vec<Vec<OnlineCpu>> = Vec::new();
    for group in groups {
        let joins = |last: &Vec<OnlineCpu>| {
            last[0].node == group[0].node
                && (last.len() < least || group.len() < least)
                && last.len() + group.len() <= CPUS_MAX
        };
        match merged.last_mut().filter(|last| joins(last)) {
            Some(last) => last.extend(group),
            None => merged.push(group),
        }
    }
    merged
}

fn make(groups: &[Vec<OnlineCpu>], big_above: Option<u32>) -> Vec<Domain> {
    let near = |node: u32| {
        let of_node = groups.iter().enumerate().filter(|(_, g)| g[0].node == node);
        of_node.fold(0, |near, (nr, _)| near | 1 << nr)
    };
    let domain = |group: &Vec<OnlineCpu>| {
        let mut pairs = 0;
        let mut bit = 0;
        for core in group.chunk_by(|a, b| (a.node, a.cache, a.core) == (b.node, b.cache, b.core)) {
            for threads in core.chunks(2) {
                pairs |= u64::from(threads.len() == 2) << bit;
                bit += threads.len();
            }
        }
        let is_big = |c: &OnlineCpu| big_above.is_some_and(|above| c.capacity > above);
        let big = |(bit, c): (usize, &OnlineCpu)| u64::from(is_big(c)) << bit;
        Domain {
            big: group.iter().enumerate().map(big).sum(),
            cpus: group.iter().map(|c| c.cpu).collect(),
            pairs,
            near: near(group[0].node),
        }
    };
    groups.iter().map(domain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nr` CPUs of so many threads a core, CPUs a cache and CPUs a node, numbered by `number`.
    fn machine(
        nr: u32,
        threads: u32,
        cache: u32,
        node: u32,
        number: impl Fn(u32) -> u32,
    ) -> Vec<OnlineCpu> {
        let cpu = |i| OnlineCpu {
            node: i / node,
            cache: i / cache,
            core: i / threads,
            cpu: number(i),
            capacity: CAPACITY_MAX,
        };
        (0..nr).map(cpu).collect()
    }

    fn bits(domains: &[Domain]) -> Vec<usize> {
        domains.iter().map(|d| d.cpus.len()).collect()
    }

    #[test]
    fn a_domain_per_cache() {
        let domains = domains(&machine(32, 2, 8, 16, |i| i)).expect("fits");
        assert_eq!(bits(&domains), [8; 4]);
        assert!(domains.iter().all(|d| d.pairs == 0b0101_0101));
        let near: Vec<u64> = domains.iter().map(|d| d.near).collect();
        assert_eq!(near, [0b0011, 0b0011, 0b1100, 0b1100]);
    }

    #[test]
    fn threads_are_neighbours_whatever_their_numbers() {
        // as firmware numbers them: first all first threads
        let domains = domains(&machine(8, 2, 8, 8, |i| i / 2 + i % 2 * 4)).expect("fits");
        assert_eq!(domains[0].cpus, [0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!(domains[0].pairs, 0b0101_0101);
    }

    #[test]
    fn mixed_cores() {
        let mut online = machine(4, 2, 8, 8, |i| i);
        online.extend((4..7).map(|i| OnlineCpu {
            node: 0,
            cache: 0,
            core: i,
            cpu: i,
            capacity: CAPACITY_MAX,
        }));
        let domains = domains(&online).expect("fits");
        assert_eq!((bits(&domains), domains[0].pairs), (vec![7], 0b0000_0101));
    }

    #[test]
    fn caches_of_one_cpu_are_put_together() {
        assert_eq!(
            bits(&domains(&machine(64, 1, 1, 64, |i| i)).expect("fits")),
            [64]
        );
        assert_eq!(
            bits(&domains(&machine(64, 1, 1, 16, |i| i)).expect("fits")),
            [16; 4]
        );
        assert_eq!(
            bits(&domains(&machine(16, 2, 2, 16, |i| i)).expect("fits")),
            [16]
        );
    }

    #[test]
    fn large_caches_are_divided() {
        assert_eq!(
            bits(&domains(&machine(96, 2, 96, 96, |i| i)).expect("fits")),
            [64, 32]
        );
    }

    #[test]
    fn cpus_are_big_whose_capacity_is_well_above_that_of_others() {
        let big = |capacities: &[u32]| {
            let mut online = machine(capacities.len() as u32, 1, 64, 64, |i| i);
            for (cpu, capacity) in online.iter_mut().zip(capacities) {
                cpu.capacity = *capacity;
            }
            domains(&online).expect("fits")[0].big
        };
        assert_eq!(big(&[640, 640, 1024, 1024]), 0b1100);
        assert_eq!(big(&[1024, 900, 400, 400]), 0b0011);
        assert_eq!(big(&[0, 1024, 0]), 0b0010);
        assert_eq!(big(&[1024, 980, 900, 800]), 0, "favourites among equals");
        assert_eq!(big(&[1024; 4]), 0);
    }

    /// Every CPU is in one place, whatever the machine.
    #[test]
    fn all_sizes() {
        for nr in (1..=128).chain([255, 256, 511, 512, 1024, 4096]) {
            for (threads, cache, node) in [
                (1, 1, 1),
                (1, nr, nr),
                (2, 2, 8),
                (2, 6, 24),
                (4, 12, 96),
                (1, 3, 5),
            ] {
                // numbers with holes
                let online = machine(nr, threads, cache, node, |i| 3 * i);
                let domains = domains(&online).expect("fits");
                let mut cpus: Vec<u32> = domains.iter().flat_map(|d| d.cpus.clone()).collect();
                cpus.sort_unstable();
                assert_eq!(cpus, (0..nr).map(|i| 3 * i).collect::<Vec<_>>());
                assert!(
                    domains.len() <= DOMAINS_MAX && bits(&domains).iter().all(|&n| n <= CPUS_MAX)
                );
                for d in &domains {
                    assert!(
                        d.pairs & d.pairs >> 1 == 0 && d.pairs < 1 << (d.cpus.len() - 1).max(1)
                    );
                }
            }
        }
    }

    #[test]
    fn too_many_are_refused() {
        assert_eq!(domains(&machine(64 * 64 + 1, 1, 8, 64, |i| i)), None);
    }
}
