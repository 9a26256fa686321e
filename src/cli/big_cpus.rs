// SPDX-License-Identifier: GPL-2.0-only
//! The value of `--big-cpus`.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Which CPUs heavy tasks prefer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BigCpus {
    /// Those of a capacity well above that of others.
    Auto,
    /// All are alike.
    None,
    /// These.
    These(Vec<u32>),
}

impl FromStr for BigCpus {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => return Ok(Self::Auto),
            "none" => return Ok(Self::None),
            _ => {}
        }
        let cpus = scx_utils::read_cpulist(text).context("not a list of CPUs, auto or none")?;
        if cpus.is_empty() {
            bail!("a list that names no CPU; none says that all are alike");
        }
        let cpus: Result<Vec<u32>, _> = cpus.into_iter().map(u32::try_from).collect();
        Ok(Self::These(cpus?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_auto_or_none() {
        let of = |text: &str| text.parse::<BigCpus>().ok();
        assert_eq!(of("auto"), Some(BigCpus::Auto));
        assert_eq!(of("none"), Some(BigCpus::None));
        assert_eq!(of("0-2,5"), Some(BigCpus::These(vec![0, 1, 2, 5])));
        for wrong in ["", "big", "3-1", "-1", "0-", "1,,2"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}
