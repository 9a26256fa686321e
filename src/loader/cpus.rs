// SPDX-License-Identifier: GPL-2.0-only
//! Which CPUs there are and where, told to BPF before it is attached.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use libbpf_rs::{MapCore, MapFlags};
use log::debug;

use super::bytes_of;
use super::skel::{self, BpfSkel};
use super::topology::{self, CAPACITY_MAX, OnlineCpu};
use crate::cli::BigCpus;

/// The CPUs that are online, and where they are. A topology that cannot be read is no reason not to
/// schedule: then all count as near each other. So it is after a CPU was plugged in, which scx_utils does
/// not expect.
pub(super) fn online_cpus(big: &BigCpus) -> Result<Vec<OnlineCpu>> {
    let mut online = read_online()?;
    let capacity = |cpu| match big {
        BigCpus::Auto => None,
        BigCpus::None => Some(CAPACITY_MAX),
        BigCpus::These(these) if these.contains(&cpu) => Some(CAPACITY_MAX),
        BigCpus::These(_) => Some(0),
    };
    if let BigCpus::These(these) = big {
        let is_online = |cpu: &&u32| online.iter().any(|o| o.cpu == **cpu);
        let offline: Vec<_> = these.iter().filter(|cpu| !is_online(cpu)).collect();
        anyhow::ensure!(
            offline.is_empty(),
            "--big-cpus names CPUs that are not online: {offline:?} (see /sys/devices/system/cpu/online)"
        );
    }
    for cpu in &mut online {
        cpu.capacity = capacity(cpu.cpu).unwrap_or(cpu.capacity);
    }
    Ok(online)
}

fn read_online() -> Result<Vec<OnlineCpu>> {
    let numbers = cpus_online()?;
    let why = match located_cpus() {
        Ok(located) if located.len() == numbers.len() => return Ok(located),
        Ok(located) => format!("of {} CPUs {} are known", numbers.len(), located.len()),
        Err(e) => format!("{e:#}"),
    };
    debug!("caches and nodes are not taken into account: {why}");
    let number = |cpu| -> Result<OnlineCpu> {
        let cpu = u32::try_from(cpu)?;
        Ok(OnlineCpu {
            node: 0,
            cache: 0,
            core: cpu,
            cpu,
            capacity: CAPACITY_MAX,
        })
    };
    numbers.into_iter().map(number).collect()
}

fn located_cpus() -> Result<Vec<OnlineCpu>> {
    let topology = scx_utils::Topology::new()?;
    // Intel's, with two kinds of cores; not by rankings (CPPC), which tell good cores of one kind from others
    let small = cpu_list("/sys/devices/cpu_atom/cpus").unwrap_or_default();
    let fastest = topology.all_cpus.values().map(|cpu| cpu.max_freq).max();
    let fastest = fastest.unwrap_or_default().max(1);
    let capacity = |cpu: &scx_utils::Cpu| {
        let capacity = match cpu.kernel_cpu_capacity {
            Some(capacity) => capacity,
            None if small.contains(&cpu.id) => CAPACITY_MAX as usize / 2,
            None if small.is_empty() && cpu.max_freq > 0 => {
                cpu.max_freq * CAPACITY_MAX as usize / fastest
            }
            None => CAPACITY_MAX as usize,
        };
        u32::try_from(capacity).unwrap_or(CAPACITY_MAX)
    };
    let at = |(id, cpu): (&usize, &Arc<scx_utils::Cpu>)| -> Result<OnlineCpu> {
        Ok(OnlineCpu {
            node: u32::try_from(cpu.node_id)?,
            cache: u32::try_from(cpu.llc_id)?,
            core: u32::try_from(cpu.core_id)?,
            cpu: u32::try_from(*id)?,
            capacity: capacity(cpu),
        })
    };
    topology.all_cpus.iter().map(at).collect()
}

/// Numbers of the CPUs that are online.
pub(super) fn cpus_online() -> Result<Vec<usize>> {
    cpu_list("/sys/devices/system/cpu/online")
}

/// The highest number that a CPU may get, and one. `NR_CPU_IDS` of scx_utils knows only those CPUs that
/// were present at the start of this process: more may be plugged in.
pub(super) fn cpu_ids() -> Result<u32> {
    let possible = cpu_list("/sys/devices/system/cpu/possible")?;
    let last = possible.into_iter().max().context("no CPU is possible")?;
    Ok(u32::try_from(last)? + 1)
}

fn cpu_list(path: &str) -> Result<Vec<usize>> {
    let list = std::fs::read_to_string(path).context(path.to_owned())?;
    scx_utils::read_cpulist(list.trim()).context(path.to_owned())
}

/// CPUs that the kernel was booted with `nohz_full=` for; without any it says "(null)", or has no such file.
fn nohz_full() -> Vec<usize> {
    cpu_list("/sys/devices/system/cpu/nohz_full").unwrap_or_default()
}

/// Tell BPF where CPUs are: `bpf/place/state.h`.
pub(super) fn note_topology(skel: &mut BpfSkel, online: &[OnlineCpu]) -> Result<()> {
    let domains = topology::domains(online).context("more CPUs than 64 domains have room for")?;
    let cache_of: BTreeMap<u32, u32> = online.iter().map(|c| (c.cpu, c.cache)).collect();
    let nohz_full = nohz_full();
    let mut big = 0_u64;
    for (nr, domain) in (0_u32..).zip(&domains) {
        let all = u64::MAX >> (64 - domain.cpus.len());
        // SAFETY: the type has integer fields only.
        let mut value: skel::types::domain = unsafe { std::mem::zeroed() };
        value.cpus = all;
        value.idle = all;
        value.pairs = domain.pairs;
        value.near = domain.near;
        value.big = domain.big;
        big |= u64::from(domain.big != 0) << nr;
        for (bit, cpu) in (0_u32..).zip(&domain.cpus) {
            value.cpu_of[bit as usize] = u16::try_from(*cpu)?;
            // SAFETY: as above.
            let mut ctx: skel::types::cpu_ctx = unsafe { std::mem::zeroed() };
            ctx.cache_id = cache_of.get(cpu).copied().unwrap_or_default();
            ctx.domain = nr;
            ctx.bit = bit;
            ctx.idle = 1;
            ctx.nohz_full = u32::from(nohz_full.contains(&(*cpu as usize)));
            let key = cpu.to_ne_bytes();
            skel.maps
                .cpu_ctxs
                .update(&key, bytes_of(&ctx), MapFlags::ANY)?;
        }
        skel.maps
            .domains
            .update(&nr.to_ne_bytes(), bytes_of(&value), MapFlags::ANY)?;
    }
    let bss = skel.maps.bss_data.as_mut();
    let machine = &mut bss.context("BPF object without variables")?.machine;
    machine.idle = u64::MAX >> (64 - domains.len());
    machine.big = big;
    let nr_big: u32 = domains.iter().map(|d| d.big.count_ones()).sum();
    debug!(
        "{} CPUs in {} domains, {nr_big} of them big",
        online.len(),
        domains.len()
    );
    Ok(())
}
