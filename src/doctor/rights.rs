// SPDX-License-Identifier: GPL-2.0-only
//! What this process may do, and what the kernel keeps from it. Pure: what is parsed is text, which
//! `host` reads. What could not be read is None, with the reason in `unread`.

use serde::Serialize;

/// What loading needs, by bit (linux/capability.h). CAP_SYS_ADMIN includes both.
const LOADING: [(&str, u32); 2] = [("CAP_BPF", 39), ("CAP_PERFMON", 38)];
const SYS_ADMIN: u32 = 21;
const SYS_RESOURCE: u32 = 24;
const IPC_LOCK: u32 = 14;
const SYSLOG: u32 = 34;

/// The files that say so, each with its text or why it cannot be read.
pub struct Sources {
    /// /proc/self/status
    pub status: Result<String, String>,
    /// /proc/self/limits
    pub limits: Result<String, String>,
    /// /proc/sys/kernel/kptr_restrict
    pub kptr_restrict: Result<String, String>,
    /// /proc/sys/kernel/perf_event_paranoid
    pub perf_event_paranoid: Result<String, String>,
    /// /sys/kernel/security/lockdown
    pub lockdown: Result<String, String>,
}

/// What this process may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rights {
    /// Capabilities that loading needs and this process lacks.
    pub missing_capabilities: Option<Vec<&'static str>>,
    /// sysctl kernel.kptr_restrict
    pub kptr_restrict: Option<i64>,
    /// sysctl kernel.perf_event_paranoid
    pub perf_event_paranoid: Option<i64>,
    /// Whether this process sees the addresses in /proc/kallsyms, by which locks get their names.
    pub sees_addresses: Option<bool>,
    /// `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Memory that may be locked, in bytes or `unlimited`.
    pub memlock: Option<String>,
    /// Whether that limit binds this process, which locks its memory: not with CAP_IPC_LOCK.
    pub memlock_binds: Option<bool>,
    /// How much this process can lock, once it has raised the limit as far as it may. None: any amount,
    /// or not known.
    pub lockable_bytes: Option<u64>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl Rights {
    /// From what the files say.
    #[must_use]
    pub fn new(sources: &Sources) -> Self {
        let mut unread = Vec::new();
        let mut read = |source: &Result<String, String>, parse: fn(&str) -> Option<String>| {
            let parsed = source.as_ref().map_err(Clone::clone).and_then(|text| {
                let start: String = text.chars().take(40).collect();
                parse(text).ok_or_else(|| format!("not understood: {start:?}"))
            });
            parsed.map_err(|why| unread.push(why)).ok()
        };
        let number = |text: String| text.parse::<i64>().ok();
        let as_number: fn(&str) -> Option<String> =
            |text| text.trim().parse::<i64>().ok().map(|n| n.to_string());
        let capabilities = read(&sources.status, |text| {
            capabilities(text).map(|bits| bits.to_string())
        });
        let capabilities = capabilities.and_then(|bits| bits.parse::<u64>().ok());
        let kptr_restrict = read(&sources.kptr_restrict, as_number).and_then(number);
        let perf_event_paranoid = read(&sources.perf_event_paranoid, as_number).and_then(number);
        let lockdown = read(&sources.lockdown, lockdown);
        let hard = sources.limits.as_ref().ok();
        let hard = hard.and_then(|text| memlock(text, HARD)?.parse().ok());
        let memlock = read(&sources.limits, |text| memlock(text, SOFT));
        Self {
            missing_capabilities: capabilities.map(missing),
            kptr_restrict,
            perf_event_paranoid,
            sees_addresses: sees_addresses(kptr_restrict, perf_event_paranoid, capabilities),
            memlock_binds: (memlock.as_deref().zip(capabilities))
                .map(|(limit, bits)| limit != "unlimited" && !has(bits, IPC_LOCK)),
            lockable_bytes: hard.filter(|_| capabilities.is_some_and(|bits| !may_lock_any(bits))),
            lockdown,
            memlock,
            unread,
        }
    }

    /// Whether not even root sees addresses, and so libbpf finds no variable of the kernel.
    #[must_use]
    pub fn hides_from_root(&self) -> bool {
        self.kptr_restrict.is_some_and(|level| level > 1)
    }
}

fn has(bits: u64, capability: u32) -> bool {
    bits & 1 << capability != 0
}

/// With either the limit does not matter.
fn may_lock_any(bits: u64) -> bool {
    has(bits, IPC_LOCK) || has(bits, SYS_RESOURCE)
}

/// The effective ones, from /proc/self/status.
fn capabilities(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let bits = lines.find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(bits.trim(), 16).ok()
}

fn missing(bits: u64) -> Vec<&'static str> {
    if has(bits, SYS_ADMIN) {
        return Vec::new();
    }
    let lacking = LOADING.into_iter().filter(|(_, bit)| !has(bits, *bit));
    lacking.map(|(name, _)| name).collect()
}

/// As kallsyms_show_value() of the kernel decides. A rule of 2 or above hides them from root, too.
fn sees_addresses(
    kptr_restrict: Option<i64>,
    paranoid: Option<i64>,
    caps: Option<u64>,
) -> Option<bool> {
    let may = caps.map(|bits| has(bits, SYSLOG));
    match kptr_restrict? {
        0 if may == Some(true) => Some(true),
        0 => match paranoid {
            Some(level) if level <= 1 => Some(true),
            Some(_) => may,
            None => None,
        },
        1 => may,
        _ => Some(false),
    }
}

/// The one in brackets: `none [integrity] confidentiality`.
fn lockdown(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    let (mode, _) = rest.split_once(']')?;
    Some(mode.to_owned())
}

const SOFT: usize = 0;
const HARD: usize = 1;

/// One of the limits, from /proc/self/limits.
fn memlock(limits: &str, which: usize) -> Option<String> {
    let mut lines = limits.lines();
    let line = lines.find_map(|line| line.strip_prefix("Max locked memory"))?;
    let mut words = line.split_ascii_whitespace();
    words.nth(which).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(caps: &str, kptr: &str, paranoid: &str, lockdown: Result<&str, &str>) -> Sources {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max locked memory         8388608              unlimited            bytes\n";
        Sources {
            status: Ok(format!("Name:\tscx_proxy\nCapPrm:\t0\nCapEff:\t{caps}\n")),
            limits: Ok(limits.to_owned()),
            kptr_restrict: Ok(format!("{kptr}\n")),
            perf_event_paranoid: Ok(format!("{paranoid}\n")),
            lockdown: lockdown.map(str::to_owned).map_err(str::to_owned),
        }
    }

    const ROOT: &str = "000001ffffffffff";
    const NONE: &str = "0000000000000000";
    const UNLOCKED: Result<&str, &str> = Ok("[none] integrity confidentiality\n");

    #[test]
    fn root_lacks_nothing() {
        let rights = Rights::new(&sources(ROOT, "0", "2", UNLOCKED));
        assert_eq!(rights.missing_capabilities, Some(vec![]));
        assert_eq!(rights.sees_addresses, Some(true));
        assert_eq!(rights.lockdown.as_deref(), Some("none"));
        assert_eq!(rights.memlock.as_deref(), Some("8388608"));
        assert_eq!(rights.memlock_binds, Some(false));
        assert!(rights.unread.is_empty());
    }

    #[test]
    fn a_user_lacks_capabilities_each_by_name() {
        let of = |caps| Rights::new(&sources(caps, "1", "3", UNLOCKED));
        let all = vec!["CAP_BPF", "CAP_PERFMON"];
        assert_eq!(of(NONE).missing_capabilities, Some(all));
        assert_eq!(of(NONE).memlock_binds, Some(true));
        let perfmon = "0000004000000000";
        let rest = Some(vec!["CAP_BPF"]);
        assert_eq!(of(perfmon).missing_capabilities, rest);
        let bpf_and_perfmon = "000000c000000000";
        assert_eq!(of(bpf_and_perfmon).missing_capabilities, Some(vec![]));
        let sys_admin = "0000000000200000";
        assert_eq!(of(sys_admin).missing_capabilities, Some(vec![]));
    }

    #[test]
    fn addresses_are_seen_as_the_kernel_has_it() {
        for (kptr, paranoid, caps, seen) in [
            ("0", "1", NONE, true),
            ("0", "2", NONE, false),
            ("0", "2", ROOT, true),
            ("1", "-1", NONE, false),
            ("1", "2", ROOT, true),
            ("2", "-1", ROOT, false),
        ] {
            let rights = Rights::new(&sources(caps, kptr, paranoid, UNLOCKED));
            assert_eq!(
                rights.sees_addresses,
                Some(seen),
                "{kptr} {paranoid} {caps}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let absent = Err("lockdown: no such file");
        let rights = Rights::new(&sources(ROOT, "much", "2", absent));
        assert_eq!((rights.kptr_restrict, rights.sees_addresses), (None, None));
        assert_eq!(rights.lockdown, None);
        let expected = ["not understood: \"much\\n\"", "lockdown: no such file"];
        assert_eq!(rights.unread, expected);
    }

    #[test]
    fn what_may_be_locked_is_the_hard_limit_unless_a_capability_lifts_it() {
        let of = |caps, hard| {
            let mut sources = sources(caps, "1", "3", UNLOCKED);
            sources.limits = Ok(format!("Max locked memory  65536  {hard}  bytes\n"));
            Rights::new(&sources).lockable_bytes
        };
        assert_eq!(of(NONE, "8388608"), Some(8 << 20));
        assert_eq!(of(NONE, "unlimited"), None);
        assert_eq!(of("0000000000004000", "8388608"), None, "CAP_IPC_LOCK");
        assert_eq!(of("0000000001000000", "8388608"), None, "CAP_SYS_RESOURCE");
    }

    #[test]
    fn lockdown_is_what_stands_in_brackets() {
        let text = Ok("none integrity [confidentiality]\n");
        let rights = Rights::new(&sources(ROOT, "0", "2", text));
        assert_eq!(rights.lockdown.as_deref(), Some("confidentiality"));
    }
}
