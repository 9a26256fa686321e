// SPDX-License-Identifier: GPL-2.0-only
//! An event as a line of text, `--print-events`.

use crate::abi;

use super::edge;

/// Where a donor that woke was sent, by `other` of an `EVENT_RETURN`.
pub fn choice(other: u32) -> &'static str {
    match other & !abi::RETURN_MOVED {
        abi::return_choice_RETURN_IDLE => "idle",
        abi::return_choice_RETURN_HOME => "home",
        abi::return_choice_RETURN_OWNER => "owner",
        _ => "unknown",
    }
}

/// What asked for the lock, if that is known.
fn site(event: &abi::proxy_event) -> String {
    let at = event.site;
    match event.site_kind {
        abi::proxy_site_kind_SITE_KERNEL => format!(" kernel={at:#x}"),
        abi::proxy_site_kind_SITE_USER => format!(" program={at:#x}"),
        abi::proxy_site_kind_SITE_MMAP => format!(" mm={at}"),
        _ => String::new(),
    }
}

/// One line: time in ns, what happened, to whom. Tasks are pids, locks addresses.
pub fn line(event: &abi::proxy_event) -> String {
    let abi::proxy_event {
        time_ns,
        lock,
        value,
        kind,
        cpu,
        pid,
        other,
        inverted_ns,
        ..
    } = *event;
    let what = match kind {
        abi::proxy_event_kind_EVENT_BLOCK => {
            let (lock_type, at) = (edge::type_name(lock), edge::address(lock));
            format!(
                "block waiter={pid} lock={at:#x} type={lock_type} owner={other} cpu={cpu}{}",
                site(event)
            )
        }
        abi::proxy_event_kind_EVENT_WAKE => {
            format!("wake waiter={pid} waited_ns={value} inverted_ns={inverted_ns}")
        }
        abi::proxy_event_kind_EVENT_DONATE => {
            format!("donate donor={pid} owner={other} cpu={cpu} locks={value}")
        }
        abi::proxy_event_kind_EVENT_MIGRATE => {
            format!("migrate donor={pid} owner={other} cpu={cpu}")
        }
        abi::proxy_event_kind_EVENT_PARK => format!("park donor={pid} owner={other}"),
        abi::proxy_event_kind_EVENT_TRUNCATED => format!("truncated donor={pid} at={other}"),
        abi::proxy_event_kind_EVENT_CYCLE => format!("cycle donor={pid} at={other}"),
        abi::proxy_event_kind_EVENT_RETURN => {
            let moved = u8::from(other & abi::RETURN_MOVED != 0);
            let choice = choice(other);
            format!("return waiter={pid} cpu={cpu} choice={choice} moved={moved} after_ns={value}")
        }
        abi::proxy_event_kind_EVENT_SWITCH => format!("switch donating={value}"),
        abi::proxy_event_kind_EVENT_RESTART => format!("restart gone_ns={value}"),
        _ => format!("unknown kind={kind}"),
    };
    format!("{time_ns} {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_what_happened_to_whom() {
        let event = abi::proxy_event {
            time_ns: 7,
            lock: 0,
            value: 2,
            kind: abi::proxy_event_kind_EVENT_DONATE,
            cpu: 3,
            pid: 10,
            other: 11,
            ..Default::default()
        };
        assert_eq!(line(&event), "7 donate donor=10 owner=11 cpu=3 locks=2");
        let event = abi::proxy_event {
            kind: abi::proxy_event_kind_EVENT_RETURN,
            other: abi::return_choice_RETURN_HOME | abi::RETURN_MOVED,
            ..event
        };
        let said = "7 return waiter=10 cpu=3 choice=home moved=1 after_ns=2";
        assert_eq!(line(&event), said);
        let kind = abi::proxy_event_kind_EVENT_RESTART;
        assert_eq!(
            line(&abi::proxy_event { kind, ..event }),
            "7 restart gone_ns=2"
        );
    }
}
