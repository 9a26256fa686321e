// SPDX-License-Identifier: GPL-2.0-only
//! The modules of the crate build on each other, and never in a circle: what a part needs can be read, tested and
//! moved without what needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Needs = BTreeMap<String, BTreeSet<String>>;

fn rust_files(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            rust_files(&entry.expect("an entry").path(), into);
        }
    } else if path.extension().is_some_and(|ext| ext == "rs") {
        into.push(path.to_owned());
    }
}

/// The top-level modules that a file names as `crate::NAME` or in `crate::{NAME, ...}`, its comments left aside.
fn named(text: &str) -> BTreeSet<String> {
    let code: Vec<&str> = text
        .lines()
        .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
        .collect();
    let word = |text: &str| -> String {
        let is_word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
        text.trim_start().chars().take_while(is_word).collect()
    };
    let mut all = BTreeSet::new();
    for rest in code.join("\n").split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            all.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let end = group.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth < 0
        });
        let mut depth = 0;
        let parts = group[..end.expect("its end")].split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        all.extend(parts.map(word).filter(|name| !name.is_empty()));
    }
    all
}

/// Which top-level module names which.
fn needs() -> Needs {
    let src = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    let mut files = Vec::new();
    rust_files(src, &mut files);
    let mut needs = Needs::new();
    for file in files {
        let inside = file.strip_prefix(src).expect("below src");
        let first = inside.iter().next().expect("a name").to_string_lossy();
        let module = first.trim_end_matches(".rs").to_owned();
        if ["bin", "main", "lib"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).expect("text");
        needs.entry(module).or_default().extend(named(&text));
    }
    let modules: BTreeSet<String> = needs.keys().cloned().collect();
    for (module, named) in &mut needs {
        named.retain(|name| name != module && modules.contains(name));
    }
    needs
}

/// A circle, if there is one: each of these needs the next, and the last the first.
fn circle(needs: &Needs) -> Option<Vec<String>> {
    fn visit(at: &str, needs: &Needs, path: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        if let Some(begin) = path.iter().position(|name| name == at) {
            path.drain(..begin);
            return true;
        }
        if !done.insert(at.to_owned()) {
            return false;
        }
        path.push(at.to_owned());
        if needs[at].iter().any(|next| visit(next, needs, path, done)) {
            return true;
        }
        path.pop();
        false
    }
    let (mut path, mut done) = (Vec::new(), BTreeSet::new());
    let mut modules = needs.keys();
    modules
        .any(|module| visit(module, needs, &mut path, &mut done))
        .then_some(path)
}

#[test]
fn modules_need_each_other_in_no_circle() {
    let needs = needs();
    assert!(
        needs.len() > 20 && needs["agent"].contains("waits"),
        "{needs:?}"
    );
    if let Some(circle) = circle(&needs) {
        panic!(
            "modules of src in a circle: {} -> {}",
            circle.join(" -> "),
            circle[0]
        );
    }
}

/// The words that all of them share need none of those that use them.
#[test]
fn the_vocabulary_needs_nobody_who_speaks_it() {
    let needs = needs();
    for (module, may_need) in [
        ("events", &["abi", "locks", "output"][..]),
        ("waits", &["abi", "events"]),
    ] {
        for name in &needs[module] {
            assert!(may_need.contains(&name.as_str()), "{module} needs {name}");
        }
    }
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &[&str])]| -> Needs {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        edges
            .iter()
            .map(|(from, to)| ((*from).to_owned(), names(to)))
            .collect()
    };
    let tree = graph(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])]);
    assert_eq!(circle(&tree), None);
    let ring = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["d"]), ("d", &["b"])]);
    assert_eq!(
        circle(&ring),
        Some(["b", "c", "d"].map(str::to_owned).to_vec())
    );
    let code = "use crate::a::B;\nuse crate::{c, d::{e, f}};\n// crate::g\nlet x = crate::h::i();";
    assert_eq!(Vec::from_iter(named(code)), ["a", "c", "d", "h"]);
}
