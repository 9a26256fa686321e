// SPDX-License-Identifier: GPL-2.0-only
//! A terminal that a test can type into and look at: a shell in a tmux server of its own.

use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Time that anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(30);
const PROMPT: &str = "READY>";

/// The terminal; it goes when it is dropped.
pub struct Tmux {
    folder: std::path::PathBuf,
}

impl Tmux {
    /// A shell at its prompt. What tmux needs is put into `folder`.
    pub fn new(folder: &Path, width: u16, height: u16) -> Tmux {
        let folder = folder.to_owned();
        let tmux = Tmux { folder };
        let (width, height) = (width.to_string(), height.to_string());
        // the prompt is put together, so that the command itself does not look like it
        let shell = format!("unset NO_COLOR ENV; PS1='{PROMPT} ' exec sh");
        tmux.run(&["new-session", "-d", "-x", &width, "-y", &height, &shell]);
        tmux.wait_for(PROMPT);
        tmux
    }

    fn tmux(&self, args: &[&str]) -> io::Result<Output> {
        Command::new("tmux")
            .args(["-u", "-L", "top", "-f", "/dev/null"])
            .args(args)
            .env("TMUX_TMPDIR", &self.folder)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
    }

    fn run(&self, args: &[&str]) -> String {
        let out = self.tmux(args);
        let out = out.unwrap_or_else(|e| panic!("tmux: {e}; scripts/setup installs it"));
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "tmux {args:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Presses keys, by tmux's names for them.
    pub fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    pub fn type_in(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
    }

    /// Has the shell run a command.
    pub fn command(&self, line: &str) {
        self.type_in(line);
        self.press(&["Enter"]);
    }

    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Likewise, with the colours as escape sequences.
    pub fn screen_with_colours(&self) -> String {
        self.run(&["capture-pane", "-p", "-e"])
    }

    /// A property of the terminal, such as `alternate_on`.
    pub fn property(&self, name: &str) -> String {
        let format = format!("#{{{name}}}");
        self.run(&["display-message", "-p", &format])
            .trim()
            .to_owned()
    }

    /// Waits until `holds` of the screen, and returns that.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let seen = poll(|| {
            screen = self.screen();
            holds(&screen)
        });
        assert!(seen, "never saw {what}:\n{screen}");
        screen
    }

    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(&format!("'{text}'"), |screen| screen.contains(text))
    }

    /// The terminal goes away under whoever uses it.
    pub fn kill(&self) {
        // this is also the way out of a test that failed, for want of tmux maybe
        let _ = self.tmux(&["kill-server"]);
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until something other than a screen holds.
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    assert!(poll(holds), "it never came to this: {what}");
}

/// Whether it holds within the time that anything may take.
pub fn poll(mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    true
}
