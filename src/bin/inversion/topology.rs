// SPDX-License-Identifier: GPL-2.0-only
//! Owns the topologies: where owner, waiter and hogs of a scenario may run.

use clap::ValueEnum;
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Everything pinned to one CPU
    Same,
    /// Owner pinned to one CPU, waiter to another, hogs to every CPU
    Cross,
    /// Nothing pinned, hogs for every CPU
    Unpinned,
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Topology::Same => "same",
            Topology::Cross => "cross",
            Topology::Unpinned => "unpinned",
        })
    }
}

/// A CPU to be pinned to, or None for any.
pub type Place = Option<usize>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub holders: Place,
    /// All CPUs on which a holder may find itself.
    pub holder_cpus: Vec<usize>,
    pub waiter: Place,
    /// One entry a hog.
    pub hogs: Vec<Place>,
}

impl Topology {
    /// Places the workers on the allowed CPUs, or says why that is impossible.
    pub fn place(self, cpus: &[usize], hogs_per_cpu: u32) -> Result<Placement, String> {
        let hogs_per_cpu = hogs_per_cpu as usize;
        let repeat = |place: Place| std::iter::repeat_n(place, hogs_per_cpu);
        match (self, cpus) {
            (_, []) => Err("no CPU is allowed".to_string()),
            (Topology::Same, [cpu, ..]) => Ok(Placement {
                holders: Some(*cpu),
                holder_cpus: vec![*cpu],
                waiter: Some(*cpu),
                hogs: repeat(Some(*cpu)).collect(),
            }),
            (Topology::Cross, [owner, waiter, ..]) => Ok(Placement {
                holders: Some(*owner),
                holder_cpus: vec![*owner],
                waiter: Some(*waiter),
                hogs: cpus.iter().flat_map(|cpu| repeat(Some(*cpu))).collect(),
            }),
            (Topology::Cross, [_]) => Err("needs two CPUs, one is allowed".to_string()),
            (Topology::Unpinned, _) => Ok(Placement {
                holders: None,
                holder_cpus: cpus.to_vec(),
                waiter: None,
                hogs: cpus.iter().flat_map(|_| repeat(None)).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_uses_one_cpu() {
        let expected = Placement {
            holders: Some(3),
            holder_cpus: vec![3],
            waiter: Some(3),
            hogs: vec![Some(3), Some(3)],
        };
        assert_eq!(Topology::Same.place(&[3, 5], 2), Ok(expected));
    }

    #[test]
    fn cross_separates_and_fills_all() {
        let expected = Placement {
            holders: Some(3),
            holder_cpus: vec![3],
            waiter: Some(5),
            hogs: vec![Some(3), Some(5), Some(7)],
        };
        assert_eq!(Topology::Cross.place(&[3, 5, 7], 1), Ok(expected));
        assert!(Topology::Cross.place(&[3], 1).is_err());
    }

    #[test]
    fn unpinned_counts_cpus() {
        let expected = Placement {
            holders: None,
            holder_cpus: vec![0, 1],
            waiter: None,
            hogs: vec![None; 4],
        };
        assert_eq!(Topology::Unpinned.place(&[0, 1], 2), Ok(expected));
        assert!(Topology::Unpinned.place(&[], 2).is_err());
    }
}
