// SPDX-License-Identifier: GPL-2.0-only
//! How things look: with colours, or where `NO_COLOR` is set bold and reversed only.

use ratatui::style::{Color, Modifier, Style};

/// Styles for what is on the screen.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    colors: bool,
}

impl Theme {
    /// With colours or without.
    #[must_use]
    pub fn new(colors: bool) -> Self {
        Self { colors }
    }

    /// As the environment wants it: <https://no-color.org>.
    #[must_use]
    pub fn from_env() -> Self {
        let none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::new(!none)
    }

    fn color(self, color: Color) -> Style {
        let style = Style::default();
        if self.colors { style.fg(color) } else { style }
    }

    /// Ordinary text; `stale`: it is not known to be true any more.
    #[must_use]
    pub fn text(self, stale: bool) -> Style {
        if stale {
            self.color(Color::DarkGray)
        } else {
            Style::default()
        }
    }

    /// What stands out.
    #[must_use]
    pub fn strong(self) -> Style {
        Style::default().add_modifier(Modifier::BOLD)
    }

    /// The scheduler donates.
    #[must_use]
    pub fn good(self) -> Style {
        self.color(Color::Green).add_modifier(Modifier::BOLD)
    }

    /// What the user should know.
    #[must_use]
    pub fn notice(self) -> Style {
        self.color(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// A deadlock.
    #[must_use]
    pub fn alarm(self) -> Style {
        self.color(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Heads, the row that is selected, the screen that is shown.
    #[must_use]
    pub fn reversed(self) -> Style {
        Style::default().add_modifier(Modifier::REVERSED)
    }

    /// Keys in the footer.
    #[must_use]
    pub fn key(self) -> Style {
        self.color(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}
