// SPDX-License-Identifier: GPL-2.0-only
//! The BPF side of `observe --beside`: loads `bpf/beside/`, attaches it, reads its counters. The only user of
//! that skeleton. Dropped, nothing of it is left in the kernel.

use std::mem::MaybeUninit;
use std::sync::Arc;

use anyhow::{Context, Result};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, OpenObject};
use log::debug;

use crate::abi;
use crate::agent::KernelSide;
use crate::cli::ObserveOpts;
use crate::loader::{self, refused};

#[allow(missing_docs, dead_code, non_camel_case_types, non_snake_case)] // generated
#[allow(clippy::all, clippy::unwrap_used, clippy::undocumented_unsafe_blocks)] // generated
mod skel {
    include!(concat!(env!("OUT_DIR"), "/beside_skel.rs"));
}
use skel::{BesideSkel, BesideSkelBuilder};

/// What all our programs are called like.
const PROGRAMS: &str = "beside_";

/// The programs, in the kernel.
pub struct Observer<'a> {
    skel: BesideSkel<'a>,
    snapshot: Arc<Link>,
}

impl<'a> Observer<'a> {
    /// Loads and attaches them.
    ///
    /// # Errors
    /// What libbpf or the kernel refused; nothing stays loaded then.
    pub fn load(opts: &ObserveOpts, object: &'a mut MaybeUninit<OpenObject>) -> Result<Self> {
        refused::listen();
        let mut skel = BesideSkelBuilder::default().open(object)?;
        let rodata = skel.maps.rodata_data.as_mut();
        let cfg = &mut rodata.context("BPF object without constants")?.cfg;
        cfg.own_tgid = loader::kernels_pid();
        cfg.sample = opts.sample;
        skel.maps.events.set_max_entries(opts.events_kib * 1024)?;
        let mut skel = skel.load().map_err(|e| refused::to_load(&e.into()))?;
        for prog in ProgInfoIter::default() {
            if prog.name.to_string_lossy().starts_with(PROGRAMS) {
                debug!(
                    "{:?}: {} instructions verified",
                    prog.name, prog.verified_insns
                );
            }
        }
        skel.attach().context("the kernel's tracepoints")?;
        let snapshot = skel.links.beside_snapshot.take();
        let snapshot = Arc::new(snapshot.context("the task iterator is not attached")?);
        Ok(Self { skel, snapshot })
    }

    /// How the agent connects to it, as often as it has to.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn connection(&self) -> Result<impl Fn() -> Result<KernelSide> + Send + 'static> {
        let maps = [
            MapHandle::try_from(&self.skel.maps.events)?,
            MapHandle::try_from(&self.skel.maps.proxy_stats)?,
        ];
        let snapshot = self.snapshot.clone();
        Ok(move || KernelSide::new(loader::handles(&maps)?, None, snapshot.clone(), None))
    }

    /// From now on nothing is seen any more; what was counted can still be read.
    pub fn detach(&mut self) {
        let links = &mut self.skel.links;
        drop((links.beside_cont_begin.take(), links.beside_cont_end.take()));
        drop((links.beside_switch.take(), links.beside_wakeup.take()));
    }

    /// All counters, summed over the CPUs.
    ///
    /// # Errors
    /// What libbpf said.
    pub fn totals(&self) -> Result<[u64; abi::proxy_stat_NR_PROXY_STATS as usize]> {
        let mut totals = [0_u64; abi::proxy_stat_NR_PROXY_STATS as usize];
        for (stat, total) in totals.iter_mut().enumerate() {
            let key = u32::try_from(stat)?.to_ne_bytes();
            let copies = self
                .skel
                .maps
                .proxy_stats
                .lookup_percpu(&key, MapFlags::ANY)?;
            for copy in copies.unwrap_or_default() {
                let bytes = copy.first_chunk::<8>().context("counter of 8 bytes")?;
                *total = total.wrapping_add(u64::from_ne_bytes(*bytes));
            }
        }
        Ok(totals)
    }

    /// How often the kernel left one of the programs out.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn recursion_misses(&self) -> Result<u64> {
        let programs = self.skel.object().progs();
        let misses = programs.map(|program| Ok(loader::programs::info(&program)?.recursion_misses));
        misses.sum()
    }
}
