// SPDX-License-Identifier: GPL-2.0-only
//! A configuration file: refused with a reason, or it means what is printed of it.

use std::ffi::OsString;
use std::path::Path;

use crate::config::{Settings, Wrong};

fn settings(path: &Path) -> Result<Settings, Wrong> {
    let args = ["scx_proxy", "--config"].map(OsString::from);
    Settings::new(args.into_iter().chain([path.as_os_str().to_owned()]))
}

pub fn run(input: &[u8]) {
    let found = super::with_file(input, |_, path| settings(&path));
    match found {
        Ok(found) => {
            let text = found.to_toml();
            let again = super::with_file(text.as_bytes(), |_, path| settings(&path));
            let again = again.unwrap_or_else(|why| panic!("{why}, of what was printed:\n{text}"));
            assert!(found.changed(&again).is_empty(), "{text}");
        }
        Err(why) => assert!(why.to_string().len() > 10, "no reason"),
    }
}
