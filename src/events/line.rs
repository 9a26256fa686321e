// SPDX-License-Identifier: GPL-2.0-only
//! An event as a line of text, `--print-events`.

use super::{Event, Site, What, edge};
use crate::abi;

/// What asked for the lock, if that is known.
fn site(site: Site) -> String {
    let at = site.at;
    match site.kind {
        abi::proxy_site_kind_SITE_KERNEL => format!(" kernel={at:#x}"),
        abi::proxy_site_kind_SITE_USER => format!(" program={at:#x}"),
        abi::proxy_site_kind_SITE_MMAP => format!(" mm={at}"),
        _ => String::new(),
    }
}

/// One line: time in ns, what happened, to whom. Tasks are pids, locks addresses.
pub fn line(event: &Event) -> String {
    let cpu = event.cpu;
    let what = match event.what {
        What::Block(begun) | What::Snapshot(begun) => {
            let about = begun.about;
            let what = if event.is_snapshot() {
                "snapshot"
            } else {
                "block"
            };
            let (lock_type, at) = (edge::type_name(about.lock), edge::address(about.lock));
            format!(
                "{what} waiter={} lock={at:#x} type={lock_type} owner={} cpu={cpu}{}",
                about.pid,
                about.owner,
                site(about.site)
            )
        }
        What::Wake(ended) => format!(
            "wake waiter={} waited_ns={} inverted_ns={}",
            ended.about.pid, ended.waited_ns, ended.inverted_ns
        ),
        What::Donate {
            donor,
            owner,
            locks,
        } => format!("donate donor={donor} owner={owner} cpu={cpu} locks={locks}"),
        What::Migrate { donor, owner } => format!("migrate donor={donor} owner={owner} cpu={cpu}"),
        What::Park { donor, owner } => format!("park donor={donor} owner={owner}"),
        What::Truncated { donor, at } => format!("truncated donor={donor} at={at}"),
        What::Cycle { donor, at } => format!("cycle donor={donor} at={at}"),
        What::Return(back) => format!(
            "return waiter={} cpu={cpu} choice={} moved={} after_ns={}",
            back.pid,
            back.choice_name(),
            u8::from(back.moved),
            back.after_ns
        ),
        What::Switch { donating } => format!("switch donating={}", u8::from(donating)),
        What::Restart { gone_ns } => format!("restart gone_ns={gone_ns}"),
        What::Gave(gave) => format!(
            "gave donor={} owner={} cpu={cpu} ns={}",
            gave.donor, gave.owner, gave.ns
        ),
        What::Unknown(raw) => format!("unknown kind={}", raw.kind),
    };
    format!("{} {what}", event.time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Return;

    #[test]
    fn lines_name_what_happened_to_whom() {
        let said = |what| {
            line(&Event {
                time_ns: 7,
                cpu: 3,
                what,
            })
        };
        let donate = What::Donate {
            donor: 10,
            owner: 11,
            locks: 2,
        };
        assert_eq!(said(donate), "7 donate donor=10 owner=11 cpu=3 locks=2");
        let back = What::Return(Return {
            pid: 10,
            choice: abi::return_choice_RETURN_HOME,
            moved: true,
            after_ns: 2,
            lock_type: 0,
        });
        let expected = "7 return waiter=10 cpu=3 choice=home moved=1 after_ns=2";
        assert_eq!(said(back), expected);
        assert_eq!(said(What::Restart { gone_ns: 2 }), "7 restart gone_ns=2");
    }
}
