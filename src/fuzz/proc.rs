// SPDX-License-Identifier: GPL-2.0-only
//! Text of the kernel, in which programs and users have put names: lists of mappings, mounts and symbols, and
//! the kernel's configuration. The first byte says which.

use crate::doctor::{Config, Rights, Sources};
use crate::naming::user::{file_name, file_system, parse_mapping};
use crate::naming::{cgroups, kallsyms};

pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = super::chosen(input) else {
        return;
    };
    let text = String::from_utf8_lossy(bytes);
    match choice % 5 {
        0 => mappings(&text),
        1 => mounts(&text, bytes),
        2 => symbols(bytes),
        3 => configuration(&text),
        _ => rights(&text),
    }
}

fn mappings(text: &str) {
    for mapping in text.lines().filter_map(parse_mapping) {
        assert!(mapping.path.is_absolute(), "{mapping:?}");
        if let Some(name) = file_name(&mapping.path) {
            super::assert_printable(&name);
            assert!(!name.contains('/') && name.len() <= 100, "{name}");
        }
    }
}

fn mounts(text: &str, bytes: &[u8]) {
    let _ = cgroups::mount_point(text);
    for device in [(0, 28), (253, 1)] {
        let _ = file_system(bytes, device);
    }
}

/// Four addresses, of which two are code, and the list.
fn symbols(bytes: &[u8]) {
    let Some((addresses, list)) = bytes.split_first_chunk::<32>() else {
        return;
    };
    let mut words = addresses.chunks_exact(8);
    let mut address = || {
        let word = words.next().and_then(|word| word.first_chunk());
        u64::from_le_bytes(word.copied().unwrap_or_default())
    };
    let (calls, data) = ([address(), address()], [address(), address()]);
    let Ok(found) = kallsyms::look_up(list, &calls, &data) else {
        return;
    };
    assert!(found.functions.len() <= 2 && found.objects.len() <= 2);
    let names = found.functions.iter().chain(&found.objects);
    assert!(names.clone().all(|(_, name)| !name.is_empty()), "{found:?}");
}

fn configuration(text: &str) {
    let config = Config::new(Ok(("/proc/config.gz".into(), text.into())));
    let options = config.options.iter().all(|option| {
        let name = option.name.strip_prefix("CONFIG_");
        name.is_some_and(|name| config.value(name) == option.value.as_deref())
    });
    assert!(options, "{config:?}");
}

fn rights(text: &str) {
    let _ = Rights::new(&Sources {
        status: Ok(text.into()),
        limits: Ok(text.into()),
        kptr_restrict: Ok(text.into()),
        perf_event_paranoid: Ok(text.into()),
        lockdown: Ok(text.into()),
    });
}
