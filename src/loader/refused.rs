// SPDX-License-Identifier: GPL-2.0-only
//! What the checks did not see coming, in two lines all the same: out of what libbpf said while it loaded,
//! and out of the kernel's log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use anyhow::Error;
use libbpf_rs::{PrintLevel, set_print};

use crate::doctor::checks::Refusal;

/// What libbpf said while it loaded, the last of it.
static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
const MESSAGES_MAX: usize = 64;
/// The verifier's log may have many megabytes; its reason stands at the end.
const TAIL_BYTES: usize = 16 << 10;

fn keep(_: PrintLevel, message: String) {
    let Ok(mut said) = SAID.lock() else { return };
    if said.len() >= MESSAGES_MAX {
        said.remove(0);
    }
    let mut from = message.len().saturating_sub(TAIL_BYTES);
    while !message.is_char_boundary(from) {
        from += 1;
    }
    said.push(message[from..].to_owned());
}

/// Keep libbpf's warnings, to be told only if it fails.
pub fn listen() {
    if let Ok(mut said) = SAID.lock() {
        said.clear();
    }
    set_print(Some((PrintLevel::Warn, keep)));
}

/// Why the programs were not loaded, after [`listen`].
pub fn to_load(error: &Error) -> Error {
    let said = SAID.lock().map(|said| said.clone()).unwrap_or_default();
    Error::new(refusal(error, &said))
}

/// Two lines out of what libbpf said: which program, and the verifier's last word about it.
fn refusal(error: &Error, said: &[String]) -> Refusal {
    let lines: Vec<&str> = said.iter().flat_map(|message| message.lines()).collect();
    let failed = lines.iter().find_map(|line| {
        let (name, errno) = line.split_once(": BPF program load failed: ")?;
        let name = name.rsplit_once("prog ")?.1.trim_matches('\'');
        Some((name, errno))
    });
    let why = match failed {
        Some((name, errno)) => {
            let reason = verifiers_reason(&lines).unwrap_or("no reason given");
            format!("the kernel refuses the program {name}: {reason} ({errno})")
        }
        None => {
            // libbpf says first what went wrong, then what it gives up for that
            let first = lines.iter().find(|line| line.contains(": -E"));
            let first = first.map(|line| line.trim_start_matches("libbpf: ").to_owned());
            let reason = first.unwrap_or_else(|| format!("{error:#}").replace('\n', " "));
            format!("the programs cannot be loaded: {reason}")
        }
    };
    Refusal {
        why,
        remedy: "scx_proxy doctor for what this kernel lacks; scx_proxy -vv for all that it says"
            .to_owned(),
    }
}

/// The last line of the verifier's log that is no statistics.
fn verifiers_reason<'a>(lines: &[&'a str]) -> Option<&'a str> {
    const STATISTICS: [&str; 4] = ["processed ", "verification time", "stack depth", "insns "];
    let end = lines
        .iter()
        .position(|line| line.contains("-- END PROG LOAD LOG --"))?;
    let told = lines[..end].iter().rev().map(|line| line.trim());
    told.filter(|line| !line.is_empty() && !line.contains("-- BEGIN PROG LOAD LOG --"))
        .find(|line| !STATISTICS.iter().any(|head| line.starts_with(head)))
}

/// The kernel's log from a moment on.
pub struct KernelLog(Option<File>);

impl KernelLog {
    /// From now on. A process that may not read it gets nothing.
    pub fn from_now_on() -> Self {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg");
        let at_end = opened.and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
        Self(at_end.ok())
    }

    /// The last thing that was said about sched_ext since.
    fn reason(&mut self) -> Option<String> {
        let file = self.0.as_mut()?;
        let (mut record, mut last) = ([0; 8192], None);
        // a record a read, until there is no more
        while let Ok(len @ 1..) = file.read(&mut record) {
            last = reason_in(&String::from_utf8_lossy(&record[..len])).or(last);
        }
        last
    }
}

/// `6,1234,5678,-;sched_ext: Not compatible with ...`
fn reason_in(record: &str) -> Option<String> {
    let (_, text) = record.split_once(';')?;
    let reason = text.lines().next()?.split_once("sched_ext: ")?.1;
    Some(reason.to_owned())
}

/// Why the scheduler was not attached.
pub fn to_attach(error: &Error, log: &mut KernelLog) -> Error {
    let reason = match log.reason() {
        Some(reason) => format!("{reason} (kernel log)"),
        None => format!("{error:#}").replace('\n', " "),
    };
    Error::new(Refusal {
        why: format!("the kernel does not attach the scheduler: {reason}"),
        remedy:
            "dmesg | grep sched_ext for what else the kernel says; scx_proxy -v for libbpf's words"
                .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(said: &[&str]) -> String {
        let said: Vec<String> = said.iter().map(|text| (*text).to_owned()).collect();
        let refusal = refusal(&anyhow::anyhow!("Failed to load BPF program"), &said);
        let text = refusal.to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        refusal.why
    }

    #[test]
    fn a_refused_program_is_named_with_the_verifiers_reason() {
        let said = [
            "libbpf: prog 'proxy_dispatch': BPF program load failed: -E2BIG\n",
            "libbpf: prog 'proxy_dispatch': -- BEGIN PROG LOAD LOG --\n\
             12: (85) call bpf_map_lookup_elem#1\n\
             BPF program is too large. Processed 1000001 insn\n\
             processed 1000001 insns (limit 1000000) max_states_per_insn 30 total_states 9\n\
             -- END PROG LOAD LOG --\n",
            "libbpf: prog 'proxy_dispatch': failed to load: -E2BIG\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert_eq!(
            why(&said),
            "the kernel refuses the program proxy_dispatch: \
             BPF program is too large. Processed 1000001 insn (-E2BIG)"
        );
    }

    #[test]
    fn without_a_log_the_first_failure_is_the_reason() {
        assert!(why(&[]).contains("Failed to load BPF program"));
        let said = [
            "libbpf: Error in bpf_object__probe_loading(): -EPERM. Couldn't load trivial BPF program.\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert!(why(&said).contains("bpf_object__probe_loading(): -EPERM"));
        let said = [
            "libbpf: map 'cpu_ctxs': failed to create: -EPERM\n",
            "libbpf: failed to load object 'bpf_bpf'\n",
        ];
        assert_eq!(
            why(&said),
            "the programs cannot be loaded: map 'cpu_ctxs': failed to create: -EPERM"
        );
    }

    #[test]
    fn the_kernels_reason_is_what_it_says_of_sched_ext() {
        let record = "3,812,27135087,-;sched_ext: Not compatible with \"isolcpus=\" domain isolation\n SUBSYSTEM=x\n";
        let reason = reason_in(record);
        assert_eq!(
            reason.as_deref(),
            Some("Not compatible with \"isolcpus=\" domain isolation")
        );
        assert_eq!(reason_in("6,1,2,-;usb: new device\n"), None);
    }
}
