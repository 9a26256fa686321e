// SPDX-License-Identifier: GPL-2.0-only
//! Scenario files: TOML to [`Scenario`] and back, with the line of what is wrong.

use scx_proxy::model::scenario::Scenario;
use std::path::{Path, PathBuf};

/// The folder of scenario files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// All scenario files, ordered by name.
pub fn all() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("tests/scenarios is a folder");
    let paths = entries.map(|entry| entry.expect("an entry of tests/scenarios").path());
    let mut paths: Vec<_> = paths
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    paths.sort();
    paths
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Reads a scenario; an error names file and line.
pub fn parse(path: &Path, text: &str) -> Result<Scenario, String> {
    let file = path.display();
    let scenario: Scenario = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| line_of(text, span.start));
        format!(
            "{file}:{line}: {}; the keys are described in src/model/scenario.rs",
            e.message()
        )
    })?;
    if let Err(problem) = scenario.setup() {
        let quoted = format!("\"{}\"", problem.at);
        let at = text.find(&quoted).or_else(|| text.find(&problem.at));
        return Err(format!(
            "{file}:{}: {problem}",
            at.map_or(1, |at| line_of(text, at))
        ));
    }
    Ok(scenario)
}

/// Reads the scenario file at `path`.
pub fn read(path: &Path) -> Result<Scenario, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(path, &text)
}

/// Keeps a scenario under target/; its path.
pub fn keep(scenario: &Scenario) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("{}.toml", scenario.name));
    let text = toml::to_string_pretty(scenario).expect("a scenario can be written as TOML");
    std::fs::write(&path, text).expect("target/ can be written");
    path
}

#[test]
fn errors_name_file_line_and_remedy() {
    let path = Path::new("x.toml");
    let head = "name = \"x\"\ncpus = 1\nuntil_ms = 1\n";
    let with = |program: &str| format!("{head}[[tasks]]\nname = \"t\"\nprogram = [{program}]\n");
    let error = |text: &str| parse(path, text).expect_err("the text is wrong");
    let unknown = error(&with("\"run 1\",\n\"jump 1\""));
    assert!(unknown.starts_with("x.toml:7: "), "{unknown}");
    assert!(unknown.contains("there are: run, lock"), "{unknown}");
    let no_lock = error(&with("\"lock a\""));
    assert!(
        no_lock.starts_with("x.toml:6: ") && no_lock.contains("[[locks]]"),
        "{no_lock}"
    );
    let no_time = error(&with("\"run fast\""));
    assert!(
        no_time.starts_with("x.toml:6: ") && no_time.contains("in ms"),
        "{no_time}"
    );
    let no_key = error("name = \"x\"\ncpu = 1\n");
    assert!(
        no_key.starts_with("x.toml:2: ") && no_key.contains("cpu"),
        "{no_key}"
    );
    let no_cpu = error(&with("\"affinity 3\""));
    assert!(no_cpu.contains("there is no CPU 3"), "{no_cpu}");
}
