// SPDX-License-Identifier: GPL-2.0-only
//! The documents: what they name exists, and README.md stays short. Names are taken from the text, so
//! that a file, flag, metric or heading that is renamed without them is found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory;
use scx_proxy::cli::Opts;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// A page that people read to its end.
const README_WORDS_MAX: usize = 1200;
const ARCHITECTURE_LINES_MAX: usize = 150;
const PROGRAMS: [(&str, &str); 3] = [
    ("scx_proxy", env!("CARGO_BIN_EXE_scx_proxy")),
    ("inversion", env!("CARGO_BIN_EXE_inversion")),
    ("schedload", env!("CARGO_BIN_EXE_schedload")),
];
/// Scripts whose `--help` changes nothing; they want Debian's Python.
const SCRIPTS: [&str; 14] = [
    "bench",
    "campaign",
    "check-trace",
    "demo",
    "facts",
    "fuzz",
    "kernel",
    "package",
    "place",
    "setup",
    "stressors",
    "test",
    "verified",
    "vm",
];
/// How it works, in depth: DESIGN.md is its index.
const DESIGN_PAGES: &str = "docs/design";
const PYTHON: &str = "/usr/bin/python3";
/// Programs of others. What follows them is not ours to check.
const FOREIGN_PROGRAMS: [&str; 1] = ["cargo"];
/// Flags of others that documents name by themselves: of container engines.
const FOREIGN_FLAGS: [&str; 2] = ["--pid", "--fix"];
/// Folders below `bpf/` that documents call by their own names.
const BPF_FOLDERS: [&str; 6] = ["core", "group", "lock", "obs", "place", "sched"];
const SOURCE_ENDINGS: [&str; 8] = [".c", ".h", ".md", ".mjs", ".py", ".rs", ".sh", ".toml"];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Pages, by their path in the repository. The changelog is left out: it names what there was.
fn documents() -> Vec<(String, String)> {
    let mut names: Vec<String> = [
        "README",
        "ARCHITECTURE",
        "DESIGN",
        "CONTRIBUTING",
        "SECURITY",
    ]
    .map(|name| format!("{name}.md"))
    .into();
    for folder in ["docs", DESIGN_PAGES] {
        let pages = std::fs::read_dir(Path::new(ROOT).join(folder)).expect(folder);
        let pages = pages.map(|entry| entry.expect("an entry").file_name());
        let pages = pages.filter_map(|name| name.into_string().ok());
        let pages = pages.filter(|name| name.ends_with(".md"));
        names.extend(pages.map(|name| format!("{folder}/{name}")));
    }
    names.sort_unstable();
    let texts = names.into_iter().map(|name| {
        let text = read(&Path::new(ROOT).join(&name));
        (name, text)
    });
    texts.collect()
}

/// Every file and folder of the repository, by path; not what builds leave, nor git's own.
fn files() -> BTreeSet<String> {
    fn walk(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(ROOT).expect("below the root");
            let name = name.to_str().expect("UTF-8").to_owned();
            if ["target", ".git"].contains(&name.as_str()) {
                continue;
            }
            let is_folder = path.is_dir();
            found.insert(name);
            if is_folder {
                walk(&path, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(Path::new(ROOT), &mut found);
    found
}

/// Words that may be paths.
fn words(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-*".contains(c);
    text.split(|c| !is_part(c))
        .map(|word| word.trim_end_matches(['.', '/']))
        .map(|word| word.strip_prefix("./").unwrap_or(word))
        .filter(|word| !word.is_empty())
        .collect()
}

/// Whether a word is the path of something here, or no path of ours at all.
fn exists(word: &str, files: &BTreeSet<String>) -> bool {
    let first = word.split('/').next().expect("a word");
    let (has_folder, is_folder) = (word.contains('/'), files.contains(first));
    if let Some(name) = word.strip_prefix("target/release/") {
        return PROGRAMS.iter().any(|(program, _)| *program == name);
    }
    if let Some((before, _)) = word.split_once('*').filter(|_| has_folder && is_folder) {
        return files.iter().any(|file| file.starts_with(before));
    }
    if has_folder && is_folder {
        return files.contains(word);
    }
    if has_folder && word.contains('.') && BPF_FOLDERS.contains(&first) {
        return files.contains(&format!("bpf/{word}"));
    }
    let is_source = |end: &&str| word.len() > end.len() && word.ends_with(*end);
    if SOURCE_ENDINGS.iter().any(is_source) && !word.starts_with(['/', '.', '*']) {
        let end = format!("/{word}");
        return files.contains(word) || files.iter().any(|file| file.ends_with(&end));
    }
    true
}

#[test]
fn paths_in_documents_exist() {
    let files = files();
    let mut gone = Vec::new();
    for (name, text) in documents() {
        let in_page = |word: &&str| {
            let beside = Path::new(&name).parent().expect("a file").join(word);
            files.contains(beside.to_str().expect("UTF-8"))
        };
        let words = words(&text);
        let missing = words.iter().filter(|word| !exists(word, &files));
        let missing = missing.filter(|word| !word.starts_with("../"));
        gone.extend(
            missing
                .filter(|word| !in_page(word))
                .map(|word| format!("{name}: {word}")),
        );
    }
    assert!(gone.is_empty(), "no such files: {gone:#?}");
}

#[test]
fn a_path_is_told_from_other_words() {
    let files = files();
    for word in [
        "src/main.rs",
        "core/ports.h",
        "ports.h",
        "reference/place.rs",
        "tests/scenarios/*.toml",
        "target/release/inversion",
        "and/or",
        "/proc/config.gz",
        "sched/cgroup_mode",
        "task->blocked_on",
        "trace.json",
    ] {
        assert!(exists(word, &files), "{word}");
    }
    for word in [
        "src/gone.rs",
        "core/gone.h",
        "gone.h",
        "scripts/gone",
        "tests/gone/*.toml",
        "target/release/gone",
        "docs/gone",
    ] {
        assert!(!exists(word, &files), "{word}");
    }
}

/// What is set as code: lines of blocks, and spans between backticks, each on one line.
fn code(text: &str) -> Vec<String> {
    let (mut found, mut prose, mut in_block) = (Vec::new(), String::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(line.split(" # ").next().unwrap_or_default().to_owned());
        } else {
            prose.push_str(line);
            // a span ends with its paragraph, or its row of a table
            prose.push(if line.starts_with('|') || line.is_empty() {
                '\n'
            } else {
                ' '
            });
        }
    }
    let spans = prose
        .lines()
        .flat_map(|part| part.split('`').skip(1).step_by(2));
    found.extend(spans.map(str::to_owned));
    found
}

/// The flags with two dashes that a text holds. A word that ends in a dash is cut off at the end of a line.
fn flags(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_part(c));
    let words = words.filter(|word| word.starts_with("--") && !word.ends_with('-'));
    let mut found: BTreeSet<_> = words.collect();
    found.retain(|word| word.len() > 3 && word.as_bytes()[2].is_ascii_lowercase());
    found.into_iter().map(str::to_owned).collect()
}

fn help(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let out = Command::new(program.as_ref())
        .args(args)
        .arg("--help")
        .output();
    let out = out.unwrap_or_else(|e| panic!("{:?}: {e}", program.as_ref()));
    assert!(out.status.success(), "{:?} {args:?}", program.as_ref());
    crate::text(&out.stdout)
}

/// Subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The flags of each command, by its name: `scx_proxy`, `scx_proxy top`, `scripts/vm`, ...
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for (name, path) in PROGRAMS {
        let top = help(path, &[]);
        for sub in subcommands(&top) {
            all.insert(format!("{name} {sub}"), flags(&help(path, &[&sub])));
        }
        all.insert(name.to_owned(), flags(&top));
    }
    // flags that help does not show
    let opts = Opts::command();
    for (sub, arg) in opts
        .get_subcommands()
        .flat_map(|sub| sub.get_arguments().map(move |arg| (sub.get_name(), arg)))
    {
        let known = all.get_mut(&format!("scx_proxy {sub}"));
        if let (Some(known), Some(long)) = (known, arg.get_long()) {
            known.insert(format!("--{long}"));
        }
    }
    for name in SCRIPTS {
        let path = Path::new(ROOT).join("scripts").join(name);
        all.insert(format!("scripts/{name}"), flags(&help(path, &[])));
    }
    all
}

/// The flags of a command line that the command does not have. Those of what is no command of ours must
/// belong to any of ours.
fn unknown_flags(line: &str, commands: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut unknown = Vec::new();
    for part in line.split(['|', ';', '>', '(']) {
        // what follows cargo's own flags is for the program that it runs
        let parts = part.split(" -- ");
        unknown.extend(
            parts
                .take_while(|part| !FOREIGN_PROGRAMS.contains(&program(part).0))
                .flat_map(|part| unknown_of_command(part, commands)),
        );
    }
    unknown
}

/// The program of a command, without its folder, and what follows it.
fn program(part: &str) -> (&str, &str) {
    let part = part.trim_start_matches(['$', '.', ' ', '/']);
    let words = part.split_whitespace();
    // variables of the environment
    let words = words.filter(|word| *word != "sudo" && !word.contains('='));
    let mut words = words.map(|word| word.trim_start_matches("target/release/"));
    let first = words.next().unwrap_or_default();
    (first, words.next().unwrap_or_default())
}

fn unknown_of_command(part: &str, commands: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let (first, second) = program(part);
    let asked = [
        format!("{first} {second}"),
        first.to_owned(),
        format!("scx_proxy {first}"),
    ];
    let known = asked.iter().find_map(|name| commands.get(name));
    let is_known = |flag: &String| match known {
        Some(known) => known.contains(flag),
        None => {
            FOREIGN_FLAGS.contains(&flag.as_str()) || commands.values().any(|it| it.contains(flag))
        }
    };
    flags(part)
        .into_iter()
        .filter(|flag| !is_known(flag))
        .collect()
}

#[test]
fn flags_in_documents_exist() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let commands = commands();
    let mut gone = Vec::new();
    for (name, text) in documents() {
        for line in code(&text) {
            let unknown = unknown_flags(&line, &commands).into_iter();
            gone.extend(unknown.map(|flag| format!("{name}: {flag} in: {line}")));
        }
    }
    assert!(gone.is_empty(), "no such flags: {gone:#?}");
}

#[test]
fn a_flag_belongs_to_its_command() {
    if !Path::new(PYTHON).exists() {
        return;
    }
    let commands = commands();
    let unknown = |line| unknown_flags(line, &commands);
    for line in [
        "sudo target/release/scx_proxy --stats 1",
        "scx_proxy replay FILE --json | jq .",
        "scripts/vm --virtual-time --cpus 1 7.3 -- ... inversion rename --rounds 5",
        "--observe",
        "SEED=7 cargo test --release --test model inversion -- --nocapture",
    ] {
        assert!(unknown(line).is_empty(), "{line}: {:?}", unknown(line));
    }
    for (line, flag) in [
        ("scx_proxy --rounds 5", "--rounds"),
        ("scx_proxy top --stats 1", "--stats"),
        ("scripts/vm --cpu 1 7.3 -- uname -r", "--cpu"),
        (
            "scripts/vm 7.3 -- target/release/scx_proxy doctor --jason",
            "--jason",
        ),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        assert_eq!(unknown(line), [flag], "{line}");
    }
}

/// `docs/metrics.md` holds what is exposed, says a test of `src/metrics/series.rs`.
#[test]
fn metrics_in_documents_exist() {
    let table = read(&Path::new(ROOT).join("docs/metrics.md"));
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let known: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(known.contains("scx_proxy_up"));
    let is_known = |word: &str| {
        let ends = ["_total", "_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| word.strip_suffix(end));
        known.contains(word) || base.is_some_and(|base| known.contains(base))
    };
    let mut gone = Vec::new();
    for (name, text) in documents() {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics = words.filter(|word| word.starts_with("scx_proxy_"));
        gone.extend(
            metrics
                .filter(|word| !is_known(word))
                .map(|word| format!("{name}: {word}")),
        );
    }
    assert!(gone.is_empty(), "no such metrics: {gone:#?}");
}

/// The anchors of a page, as GitHub makes them of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let headings = text.lines().filter(|line| {
        in_block ^= line.trim_start().starts_with("```");
        !in_block && line.starts_with('#')
    });
    let slug = |heading: &str| {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = title
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(slug).collect()
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (name, text) in documents() {
        let page = Path::new(ROOT).join(&name);
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path: PathBuf = match file {
                "" => page.clone(),
                file => page.parent().expect("a folder").join(file),
            };
            let well =
                path.exists() && (anchor.is_empty() || anchors(&read(&path)).contains(anchor));
            if !well {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links: {broken:#?}");
}

/// Those of the design are, like the pages for users, one link away from a page of the root.
#[test]
fn every_page_is_linked_from_its_index() {
    let [readme, design] = ["README.md", "DESIGN.md"].map(|name| read(&Path::new(ROOT).join(name)));
    for (name, _) in documents() {
        let (index, text) = match name.starts_with(DESIGN_PAGES) {
            true => ("DESIGN.md", &design),
            false => ("README.md", &readme),
        };
        let linked = name == "README.md" || text.contains(&format!("]({name}"));
        assert!(linked, "{index} has no link to {name}");
    }
}

#[test]
fn the_readme_and_the_map_are_short() {
    let words = read(&Path::new(ROOT).join("README.md"));
    let words = words.split_whitespace().count();
    assert!(words <= README_WORDS_MAX, "README.md has {words} words");
    let lines = read(&Path::new(ROOT).join("ARCHITECTURE.md"));
    let lines = lines.lines().count();
    assert!(
        lines <= ARCHITECTURE_LINES_MAX,
        "ARCHITECTURE.md has {lines} lines"
    );
}

/// A row of the tables in `docs/flags.md`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    short: Option<char>,
    long: String,
    default: String,
}

/// The rows of each command, with the range that a row gives.
fn listed() -> BTreeMap<String, Vec<(Flag, String)>> {
    let page = read(&Path::new(ROOT).join("docs/flags.md"));
    let mut tables = BTreeMap::<String, Vec<_>>::new();
    let mut command = String::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            command = heading.to_owned();
        }
        let Some(row) = line.strip_prefix("| `-") else {
            continue;
        };
        let mut cells = row.split('|').map(|cell| cell.replace('`', ""));
        let mut next = || cells.next().expect("a cell").trim().to_owned();
        let (names, default, range) = (format!("-{}", next()), next(), next());
        let mut names = names
            .split(", ")
            .map(|name| name.split(' ').next().expect("a name"));
        let first = names.next().expect("a name");
        let long = names
            .next()
            .unwrap_or(first)
            .trim_start_matches('-')
            .to_owned();
        let short = first.chars().nth(1).filter(|c| *c != '-');
        let flag = Flag {
            short,
            long,
            default,
        };
        tables
            .entry(command.clone())
            .or_default()
            .push((flag, range));
    }
    tables
}

fn defined(command: &clap::Command) -> BTreeSet<Flag> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let flags = shown.filter_map(|arg| {
        let default: Vec<_> = arg.get_default_values().iter().collect();
        let default = default.iter().map(|value| value.to_str().expect("UTF-8"));
        let takes_value = arg.get_action().takes_values();
        Some(Flag {
            short: arg.get_short(),
            long: arg.get_long()?.to_owned(),
            default: if takes_value {
                default.collect()
            } else {
                String::new()
            },
        })
    });
    flags.collect()
}

#[test]
fn the_list_of_flags_is_that_of_the_command_line() {
    let opts = Opts::command();
    let listed = listed();
    let subs = opts.get_subcommands().filter(|sub| !sub.is_hide_set());
    for command in subs.chain([&opts]) {
        let name = match command.get_name() {
            "scx_proxy" => "scx_proxy".to_owned(),
            sub => format!("scx_proxy {sub}"),
        };
        let listed = listed.get(&name).cloned().unwrap_or_default();
        let listed: BTreeSet<Flag> = listed.into_iter().map(|(flag, _)| flag).collect();
        let defined = defined(command);
        let missing: Vec<_> = defined.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&defined).collect();
        assert!(
            missing.is_empty(),
            "docs/flags.md, {name}, lacks {missing:#?}"
        );
        assert!(gone.is_empty(), "docs/flags.md, {name}, has also {gone:#?}");
    }
}

#[test]
fn ranges_in_the_list_of_flags_are_those_of_the_command_line() {
    use clap::Parser;
    let mut checked = 0;
    for (command, rows) in listed() {
        let file = ["bugreport", "record", "replay"]
            .iter()
            .any(|sub| command.ends_with(sub));
        let accepted = |flag: &Flag, value: &str| {
            // its other flags want that one
            let beside = command.ends_with("observe").then_some("--beside");
            let words = command.split(' ').chain(file.then_some("FILE"));
            let words = words.chain(beside);
            let flag = format!("--{}={value}", flag.long);
            Opts::try_parse_from(words.chain([flag.as_str()])).is_ok()
        };
        for (flag, range) in rows {
            let Some((least, most)) = range.split_once("..=") else {
                let words = range
                    .split(", ")
                    .filter(|word| word.chars().all(char::is_alphabetic));
                for word in words.filter(|word| !word.is_empty()) {
                    assert!(accepted(&flag, word), "{command}: {flag:?}, {word}");
                }
                continue;
            };
            assert!(
                accepted(&flag, least) && accepted(&flag, most),
                "{command}: {flag:?}"
            );
            if let Ok(most) = most.parse::<u64>() {
                assert!(
                    !accepted(&flag, &(most * 2).to_string()),
                    "{command}: {flag:?}"
                );
                assert!(
                    !accepted(&flag, &(most + 1).to_string()),
                    "{command}: {flag:?}"
                );
            }
            if let Ok(least) = least.parse::<f64>() {
                let below = if least < 1.0 {
                    least / 2.0
                } else {
                    least - 1.0
                };
                let refused = least == 0.0 || !accepted(&flag, &below.to_string());
                assert!(refused, "{command}: {flag:?}");
            }
            checked += 1;
        }
    }
    assert!(checked > 12, "only {checked} ranges");
}
