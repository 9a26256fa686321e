// SPDX-License-Identifier: GPL-2.0-only
//! Man pages and completions, as the programs that read them take them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{scx_proxy, text};

fn printed(args: &[&str]) -> String {
    let out = scx_proxy(args);
    assert_eq!(out.status.code(), Some(0), "{args:?}");
    assert!(out.stderr.is_empty(), "{args:?}: {}", text(&out.stderr));
    text(&out.stdout)
}

/// What a program makes of the input: its output and its errors. None if there is no
/// such program.
fn filtered(program: &str, args: &[&str], input: &str) -> Option<(String, String)> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = child.wait_with_output().expect("ends");
    writer.join().expect("no panic").expect("written");
    assert!(out.status.success(), "{program}: {}", text(&out.stderr));
    Some((text(&out.stdout), text(&out.stderr)))
}

/// The flags with two dashes that a text holds, each once.
fn long_flags(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_part(c));
    let mut flags: Vec<_> = words
        .filter(|word| word.len() > 2 && word.starts_with("--"))
        .map(str::to_owned)
        .collect();
    flags.sort_unstable();
    flags.dedup();
    flags
}

#[test]
fn man_pages_hold_all_that_help_holds() {
    for (page, help) in [
        (&["man"][..], &["--help"][..]),
        (&["man", "doctor"], &["doctor", "--help"]),
        (&["man", "completions"], &["completions", "--help"]),
    ] {
        let roff = printed(page);
        assert!(roff.contains("\n.TH scx_proxy"), "{roff}");
        let plain = roff.replace("\\-", "-");
        let flags = long_flags(&printed(help));
        assert!(flags.contains(&"--help".to_owned()), "{flags:?}");
        for flag in flags {
            assert!(plain.contains(&flag), "no {flag} in {page:?}");
        }
    }
}

/// Where there is groff (the `groff` of a bare Debian can do man pages), it reports no error.
#[test]
fn man_pages_are_roff() {
    for page in [&["man"][..], &["man", "doctor"], &["man", "man"]] {
        let args = ["-man", "-Tutf8", "-ww", "-P-cbou"];
        let Some((shown, errors)) = filtered("groff", &args, &printed(page)) else {
            return;
        };
        assert_eq!(errors, "", "{page:?}");
        for heading in ["NAME", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"] {
            assert!(shown.contains(heading), "no {heading} in\n{shown}");
        }
    }
}

#[test]
fn a_page_of_what_there_is_not_is_refused() {
    for unknown in ["facts", "doctr"] {
        let out = scx_proxy(&["man", unknown]);
        assert_eq!(out.status.code(), Some(1));
        let said = text(&out.stderr);
        let known = said.strip_prefix(&format!("error: no subcommand '{unknown}'; known are "));
        let known = known.unwrap_or_else(|| panic!("{said}"));
        assert!(
            known.contains("doctor") && !known.contains("facts"),
            "{known}"
        );
    }
    let out = scx_proxy(&["completions", "tcsh"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("bash, elvish, fish, powershell, zsh"));
}

/// What bash offers at the end of a command line.
fn offered(words: &[&str]) -> Vec<String> {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let (current, before) = words.split_last().expect("words");
    let (at, previous) = (before.len(), before.last().expect("words"));
    let drive = format!(
        "COMP_WORDS=({}); COMP_CWORD={at}; _scx_proxy scx_proxy '{current}' '{previous}'
        printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" ")
    );
    let script = printed(&["completions", "bash"]) + &drive;
    let (offers, errors) = filtered("bash", &["--norc"], &script).expect("bash");
    assert_eq!(errors, "");
    offers.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_flags_values_and_subcommands() {
    let script = printed(&["completions", "bash"]);
    let (_, errors) = filtered("bash", &["-n"], &script).expect("bash");
    assert_eq!(errors, "");

    assert_eq!(offered(&["scx_proxy", "--st"]), ["--starve-ms", "--stats"]);
    assert_eq!(offered(&["scx_proxy", "doc"]), ["doctor"]);
    assert_eq!(offered(&["scx_proxy", "doctor", "--j"]), ["--json"]);
    let places = offered(&["scx_proxy", "--return", ""]);
    assert_eq!(places, ["auto", "home", "owner"]);
    assert!(!offered(&["scx_proxy", ""]).contains(&"facts".to_owned()));
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("slice-us"), "{shell}: {script}");
        // where the shell is there, it can read that
        if matches!(shell, "zsh" | "fish") {
            filtered(shell, &["-n"], &script);
        }
    }
}
