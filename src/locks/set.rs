// SPDX-License-Identifier: GPL-2.0-only
//! What a user asks for with `--locks`: a set of lock types, and its notation.

use std::fmt;
use std::str::FromStr;

use super::LockType;

/// What is followed unless the user says otherwise; the one place to change it. Not ntsync: its
/// probe also runs for waits that need not sleep, and what that costs is not known well enough.
const DEFAULT: [LockType; 6] = [
    LockType::Mutex,
    LockType::Rwsem,
    LockType::Rtmutex,
    LockType::Pthread,
    LockType::Binder,
    LockType::Futex,
];

/// A set of lock types that can be donated through.
///
/// Written as a list: names, `all`, `default`; `+NAME` and `-NAME` add to and take from what
/// stands before them, at the beginning of the list the default. `none` stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockSet(u16);

/// Why a list of locks was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockSetError {
    /// No type of this name.
    #[error("no lock type '{0}'; known are {known}, all, default, none", known = known())]
    Unknown(String),
    /// A type that has no owner to donate to.
    #[error("'{0}' is never donated through (scx_proxy doctor says why); known are {known}", known = known())]
    Never(&'static str),
    /// Nothing between two commas, or nothing at all.
    #[error("an empty name in the list; known are {known}, all, default, none", known = known())]
    Empty,
    /// `none` beside others.
    #[error("'none' stands alone")]
    NoneAmongOthers,
}

fn known() -> String {
    let names: Vec<_> = LockType::followed().map(LockType::name).collect();
    names.join(", ")
}

impl LockSet {
    /// The set without any type.
    pub const NONE: Self = Self(0);

    fn of(types: impl IntoIterator<Item = LockType>) -> Self {
        Self(
            types
                .into_iter()
                .fold(0, |bits, lock| bits | Self::bit(lock)),
        )
    }

    fn bit(lock: LockType) -> u16 {
        1 << lock as u16
    }

    /// Whether the type is in the set.
    #[must_use]
    pub fn contains(self, lock: LockType) -> bool {
        self.0 & Self::bit(lock) != 0
    }

    /// The types of the set, in the order of `LockType::ALL`.
    pub fn iter(self) -> impl Iterator<Item = LockType> {
        LockType::ALL
            .into_iter()
            .filter(move |lock| self.contains(*lock))
    }

    fn named(name: &str) -> Result<Self, LockSetError> {
        match name {
            "" => Err(LockSetError::Empty),
            "all" => Ok(Self::of(LockType::followed())),
            "default" => Ok(Self::default()),
            "none" => Err(LockSetError::NoneAmongOthers),
            _ => match LockType::ALL.into_iter().find(|lock| lock.name() == name) {
                Some(lock) if lock.number().is_some() => Ok(Self::of([lock])),
                Some(lock) => Err(LockSetError::Never(lock.name())),
                None => Err(LockSetError::Unknown(name.to_owned())),
            },
        }
    }
}

impl Default for LockSet {
    fn default() -> Self {
        Self::of(DEFAULT)
    }
}

impl FromStr for LockSet {
    type Err = LockSetError;

    fn from_str(list: &str) -> Result<Self, LockSetError> {
        let list = list.trim();
        if list == "none" {
            return Ok(Self::NONE);
        }
        let mut set = if list.starts_with(['+', '-']) {
            Self::default()
        } else {
            Self::NONE
        };
        for item in list.split(',').map(str::trim) {
            match item.strip_prefix('-') {
                Some(name) => set.0 &= !Self::named(name.trim())?.0,
                None => set.0 |= Self::named(item.strip_prefix('+').unwrap_or(item).trim())?.0,
            }
        }
        Ok(set)
    }
}

impl fmt::Display for LockSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(LockType::name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(list: &str) -> String {
        list.parse::<LockSet>()
            .map_or_else(|e| format!("error: {e}"), |set| set.to_string())
    }

    #[test]
    fn lists_mean_what_they_say() {
        let default = LockSet::default().to_string();
        for (list, means) in [
            ("mutex,rwsem", "mutex,rwsem"),
            ("rwsem,mutex,rwsem", "mutex,rwsem"),
            (" mutex , rwsem ", "mutex,rwsem"),
            ("default", &default),
            ("all", "mutex,rwsem,rtmutex,pthread,binder,ntsync,futex"),
            ("none", "none"),
            ("all,-binder", "mutex,rwsem,rtmutex,pthread,ntsync,futex"),
            ("mutex,+pthread", "mutex,pthread"),
            ("mutex,-mutex", "none"),
            ("default,-all,+mutex", "mutex"),
        ] {
            assert_eq!(parsed(list), means, "{list:?}");
        }
    }

    #[test]
    fn signs_at_the_beginning_are_relative_to_the_default() {
        for lock in LockType::followed() {
            let plus: LockSet = format!("+{}", lock.name()).parse().expect("known");
            let minus: LockSet = format!("-{}", lock.name()).parse().expect("known");
            for other in LockType::followed() {
                let by_default = LockSet::default().contains(other);
                assert_eq!(plus.contains(other), by_default || other == lock);
                assert_eq!(minus.contains(other), by_default && other != lock);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for bits in 0..1 << LockType::followed().count() {
            assert_eq!(LockSet(bits).to_string().parse(), Ok(LockSet(bits)));
        }
    }

    #[test]
    fn errors_name_what_is_wrong_and_what_is_known() {
        for (list, says) in [
            ("mutexes", "'mutexes'"),
            ("-rcu", "'rcu'"),
            ("mutex,,rwsem", "empty name"),
            ("", "empty name"),
            ("+", "empty name"),
            ("semaphore", "'semaphore' is never donated through"),
        ] {
            let error = parsed(list);
            assert!(error.contains(says), "{list:?}: {error}");
            assert!(
                error.contains("mutex, rwsem, rtmutex, pthread, binder, ntsync, futex"),
                "{error}"
            );
        }
        assert_eq!(parsed("mutex,none"), "error: 'none' stands alone");
    }
}
