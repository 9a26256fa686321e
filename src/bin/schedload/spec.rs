// SPDX-License-Identifier: GPL-2.0-only
//! Reads what names tasks on the command line: lists of CPUs, groups of spinners. No I/O.

use std::str::FromStr;

const COUNT_MAX: u32 = 20_000;
const CPU_MAX: usize = libc::CPU_SETSIZE as usize - 1;

/// A list of CPUs as the kernel writes it, such as 0,2-3; not empty, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus(pub Vec<usize>);

/// How much the fair scheduler is to give a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    Nice(i32),
    Idle,
}

/// A group of spinners that are alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it was called on the command line.
    pub text: String,
    pub count: u32,
    pub weight: Weight,
    pub cpus: Option<Cpus>,
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                text.parse::<usize>()
                    .map_err(|_| format!("{text:?} is no CPU; a list of CPUs is such as 0,2-3"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(format!("the CPUs {part} are in the wrong order"));
            }
            if last > CPU_MAX {
                return Err(format!(
                    "there is no CPU {last}; the last possible is {CPU_MAX}"
                ));
            }
            cpus.extend(first..=last);
        }
        Ok(Cpus(cpus))
    }
}

impl FromStr for Weight {
    type Err = String;

    fn from_str(text: &str) -> Result<Weight, String> {
        if text == "idle" {
            return Ok(Weight::Idle);
        }
        match text.parse() {
            Ok(nice @ -20..=19) => Ok(Weight::Nice(nice)),
            Ok(nice) => Err(format!("nice {nice} is not in -20..=19")),
            Err(_) => Err(format!("{text:?} is neither a nice value nor idle")),
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Group, String> {
        let (tasks, cpus) = match text.split_once('@') {
            Some((tasks, cpus)) => (tasks, Some(cpus.parse()?)),
            None => (text, None),
        };
        let (count, weight) = match tasks.split_once('x') {
            Some((count, weight)) => (count, weight.parse()?),
            None => (tasks, Weight::Nice(0)),
        };
        let count = match count.parse() {
            Ok(count @ 1..=COUNT_MAX) => count,
            Ok(count) => return Err(format!("{count} spinners are not in 1..={COUNT_MAX}")),
            Err(_) => {
                return Err(format!(
                    "{count:?} is no number of spinners; a group is COUNT[xNICE|xidle][@CPULIST]"
                ));
            }
        };
        Ok(Group {
            text: text.to_owned(),
            count,
            weight,
            cpus,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read() {
        for (text, count, weight, cpus) in [
            ("5", 5, Weight::Nice(0), None),
            ("1500x19@0", 1500, Weight::Nice(19), Some(vec![0])),
            ("2x-5", 2, Weight::Nice(-5), None),
            ("1xidle@0,2-3", 1, Weight::Idle, Some(vec![0, 2, 3])),
            ("3@0-1", 3, Weight::Nice(0), Some(vec![0, 1])),
        ] {
            let wanted = Group {
                text: text.to_owned(),
                count,
                weight,
                cpus: cpus.map(Cpus),
            };
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_group_is_said() {
        for (text, says) in [
            ("", "\"\" is no number of spinners"),
            ("many", "\"many\" is no number of spinners"),
            ("x5", "\"\" is no number of spinners"),
            ("0", "0 spinners are not in 1..=20000"),
            ("20001", "20001 spinners"),
            ("1x20", "nice 20 is not in -20..=19"),
            ("1xbatch", "\"batch\" is neither a nice value nor idle"),
            ("1@", "\"\" is no CPU"),
            ("1@0,a", "\"a\" is no CPU"),
            ("1@3-1", "3-1 are in the wrong order"),
            ("1@0-4096", "no CPU 4096"),
        ] {
            let Err(said) = text.parse::<Group>() else {
                panic!("{text:?} was taken");
            };
            assert!(said.contains(says), "{text:?}: {said}");
        }
    }
}
