// SPDX-License-Identifier: GPL-2.0-only
//! How often the kernel left out programs of a scheduler that runs.

use libbpf_rs::query::ProgInfoIter;

use crate::locks::Probe;

/// Notes with each probe how often the kernel left it out, if there is such a program and we may ask.
pub fn note_skipped(probes: &mut [Probe]) {
    for program in ProgInfoIter::default() {
        let name = program.name.to_string_lossy();
        for probe in probes.iter_mut().filter(|probe| probe.is_called(&name)) {
            *probe.skipped.get_or_insert(0) += program.recursion_misses;
        }
    }
}
