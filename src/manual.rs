// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy man` and `scx_proxy completions`: man pages and shell completions, made from the
//! definition of the command line. Commands and flags that are hidden there are in neither.

use std::io;

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::SOCKET;
use crate::cli::{self, Opts};

const NAME: &str = "scx_proxy";
/// System administration.
const SECTION: &str = "8";

/// A subcommand that there is no page of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no subcommand '{asked}'; known are {}", known.join(", "))]
pub struct Unknown {
    /// What was asked for.
    pub asked: String,
    /// What there is.
    pub known: Vec<String>,
}

/// The definition without what is hidden; clap's generators do not leave that out themselves.
fn visible() -> Command {
    let all = Opts::command();
    let commands = all.get_subcommands().filter(|sub| !sub.is_hide_set());
    let args = all.get_arguments().filter(|arg| !arg.is_hide_set());
    Command::new(NAME)
        .about(all.get_about().cloned().unwrap_or_default())
        .long_about(all.get_long_about().cloned().unwrap_or_default())
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args_conflicts_with_subcommands(true)
        .args(args.cloned())
        .subcommands(commands.map(without_hidden_flags))
}

/// A subcommand of its own making, since clap takes no flag away from one that there is.
fn without_hidden_flags(sub: &Command) -> Command {
    if !sub.get_arguments().any(Arg::is_hide_set) {
        return sub.clone();
    }
    let args = sub.get_arguments().filter(|arg| !arg.is_hide_set());
    // clap wants a name for ever; this one is asked for once or twice in a process
    let name: &'static str = sub.get_name().to_owned().leak();
    Command::new(name)
        .about(sub.get_about().cloned().unwrap_or_default())
        .long_about(sub.get_long_about().cloned().unwrap_or_default())
        .args(args.cloned())
}

/// The man page of the program, or that of a subcommand, as roff.
///
/// # Errors
/// A subcommand that there is not.
pub fn page(subcommand: Option<&str>) -> Result<String, Unknown> {
    let mut all = visible();
    all.build();
    let known = all.get_subcommands().map(|sub| sub.get_name().to_owned());
    let known: Vec<String> = known.collect();
    let command = match subcommand {
        None => &all,
        Some(asked) => all.find_subcommand(asked).ok_or_else(|| Unknown {
            asked: asked.to_owned(),
            known: known.clone(),
        })?,
    };
    let man = Man::new(command.clone())
        .section(SECTION)
        .source(format!("{NAME} {}", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut text = Vec::new();
    // memory takes all that is written
    let _ = man.render(&mut text);
    let mut roff = Roff::new();
    add_exit_status(&mut roff, subcommand);
    add_files(&mut roff, subcommand);
    add_environment(&mut roff);
    add_see_also(&mut roff, subcommand, &known);
    let _ = roff.to_writer(&mut text);
    // no date, since a page is made when it is asked for; the generator drops the empty word
    let dateless = format!(" {SECTION}  \"");
    let text = String::from_utf8_lossy(&text);
    Ok(text.replacen(&dateless, &format!(" {SECTION} \"\" \""), 1))
}

/// A list: what it is about, and what is said of it.
fn add_list(roff: &mut Roff, heading: &str, items: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (head, body) in items {
        roff.control("TP", []);
        roff.text([bold(*head)]);
        roff.text([roman(*body)]);
    }
}

fn add_exit_status(roff: &mut Roff, subcommand: Option<&str>) {
    let items: &[_] = match subcommand {
        None => &[
            (
                "0",
                "It ended as asked: by Ctrl-C or SIGTERM, or after an answer.",
            ),
            (
                "1",
                "It refused: the command line or the configuration is wrong, or this machine cannot run it. \
                 Nothing was loaded. The standard error says why.",
            ),
            (
                "2",
                "The kernel ejected the scheduler since tasks waited for too long (a watchdog): an overload.",
            ),
            (
                "3",
                "The kernel threw it out for a fault, or it failed in userspace: a bug. So is 101.",
            ),
            ("4", "An administrator threw it out, by Alt-SysRq-S."),
        ],
        Some("doctor") => &[
            ("0", "The scheduler can be loaded, and follows any lock."),
            (
                "1",
                "It cannot, or follows none; or the command line is wrong.",
            ),
        ],
        Some(_) => &[
            ("0", "Printed."),
            ("1", "The command line is wrong, or nothing can be printed."),
        ],
    };
    add_list(roff, "EXIT STATUS", items);
}

fn add_files(roff: &mut Roff, subcommand: Option<&str>) {
    const STATS: (&str, &str) = (
        SOCKET,
        "Socket on which a running scheduler serves its stats, as JSON (scx_stats).",
    );
    const STATE: (&str, &str) = (
        "/sys/kernel/sched_ext",
        "What the kernel says about sched_ext, and which scheduler is loaded.",
    );
    const CONFIG: (&str, &str) = (
        "/boot/config-RELEASE, /proc/config.gz, /lib/modules/RELEASE/config",
        "The kernel's configuration, for doctor to report. Not needed to load the scheduler.",
    );
    const SETTINGS: (&str, &str) = (
        cli::CONFIG,
        "Settings, as TOML: each key is a long flag. See --config and --print-config.",
    );
    if subcommand.is_none() {
        add_list(roff, "FILES", &[SETTINGS, STATS, STATE, CONFIG]);
    } else if subcommand == Some("doctor") {
        add_list(roff, "FILES", &[STATS, STATE, CONFIG]);
    }
}

fn add_environment(roff: &mut Roff) {
    let no_color = (
        "NO_COLOR",
        "If set, and not empty, nothing is printed in color. Only terminals get colors anyway.",
    );
    add_list(roff, "ENVIRONMENT", &[no_color]);
}

fn add_see_also(roff: &mut Roff, subcommand: Option<&str>, known: &[String]) {
    let own = known
        .iter()
        .map(|name| (Some(name.as_str()), format!("{NAME}-{name}")));
    let pages = std::iter::once((None, NAME.to_owned())).chain(own);
    let mut line = Vec::new();
    for (_, page) in pages.filter(|(name, _)| *name != subcommand) {
        line.extend([bold(page), roman(format!("({SECTION}), "))]);
    }
    line.extend([bold("bpf"), roman("(2), "), bold("sched"), roman("(7)")]);
    roff.control("SH", ["SEE ALSO"]);
    roff.text(line);
}

/// What makes a shell complete this program's command line.
///
/// # Errors
/// Those of the generator, which writes into memory.
pub fn completions(shell: Shell) -> io::Result<String> {
    let mut command = visible();
    command.set_bin_name(NAME);
    command.build();
    let mut text = Vec::new();
    clap_complete::Generator::try_generate(&shell, &command, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As roff writes it.
    fn escaped(text: &str) -> String {
        text.replace('-', "\\-")
    }

    fn subcommands() -> Vec<Command> {
        visible().get_subcommands().cloned().collect()
    }

    #[test]
    fn a_page_has_every_section_and_flag() {
        for command in subcommands().iter().chain([&visible()]) {
            let name = Some(command.get_name()).filter(|name| *name != NAME);
            let page = page(name).expect("a page");
            let title = name.map_or(NAME.to_owned(), |name| format!("{NAME}-{name}"));
            assert!(page.contains(&format!(".TH {title} 8 \"\" \"")), "{page}");
            let sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"];
            for section in sections.into_iter().chain(["ENVIRONMENT"]) {
                assert!(page.contains(&format!("\n.SH {section}\n")), "{page}");
            }
            for section in ["EXIT STATUS", "SEE ALSO"] {
                assert!(page.contains(&format!("\n.SH \"{section}\"\n")), "{page}");
            }
            let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
            for long in shown.filter_map(|arg| arg.get_long()) {
                let flag = format!("\\fB{}\\fR", escaped(&format!("--{long}")));
                assert!(page.contains(&flag), "no {flag} in\n{page}");
            }
        }
        let main = page(None).expect("a page");
        assert!(main.contains("\n.SH FILES\n") && main.contains("/var/run/scx/root/stats"));
    }

    #[test]
    fn what_is_hidden_is_in_neither() {
        let hidden: Vec<_> = Opts::command()
            .get_subcommands()
            .filter(|sub| sub.is_hide_set())
            .map(|sub| sub.get_name().to_owned())
            .collect();
        assert_eq!(hidden, ["facts", "watcher"]);
        let shells = [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::Elvish,
            Shell::PowerShell,
        ];
        for shell in shells {
            let text = completions(shell).expect("a script");
            assert!(
                text.contains("doctor") && text.contains("slice-us"),
                "{shell}"
            );
            assert!(
                !["facts", "watcher", "verify-cpus", "--parent"]
                    .iter()
                    .any(|hidden| text.contains(hidden)),
                "{shell}"
            );
        }
        assert!(!page(None).expect("a page").contains("facts"));
        let doctor = page(Some("doctor")).expect("a page");
        assert!(doctor.contains("verify") && !doctor.contains("cpus"));
        let error = page(Some("facts")).expect_err("hidden");
        let error = error.to_string();
        let known = error.strip_prefix("no subcommand 'facts'; known are ");
        let known: Vec<_> = known.expect("a list").split(", ").collect();
        assert!(
            known.contains(&"doctor") && !known.contains(&"facts"),
            "{known:?}"
        );
    }
}
