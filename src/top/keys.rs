// SPDX-License-Identifier: GPL-2.0-only
//! What each key does.

use super::app::{App, Effect, Prompt};
use super::input::Key;
use super::screens::{SCREENS, Screen};
use super::worker::Ask;

/// Keys and what they do, for the help.
pub const HELP: &[(&str, &str)] = &[
    (
        "1-6, Tab",
        "screens: locks, chains, tasks, cgroups, actions, weights",
    ),
    ("arrows, PgUp/PgDn, Home/End", "move"),
    ("s / S", "sort by the next column / the other way round"),
    ("/", "show only rows with this text; Esc: all again"),
    ("i", "sums in total, per interval, or since r"),
    ("r", "sums from now on"),
    ("c", "locks one by one, or by class"),
    (
        "f, Enter",
        "freeze: keep the history of a lock, chain or task",
    ),
    ("p, Space", "pause: the screen stays as it is"),
    ("d", "switch donation on or off"),
    ("Ctrl-L / Ctrl-Z", "redraw / suspend"),
    ("q, Ctrl-C", "quit"),
];

/// The longest filter.
const FILTER_MAX: usize = 64;

impl App {
    /// Takes in a key.
    pub fn key(&mut self, key: Key) -> Option<Effect> {
        self.message = None;
        match key {
            Key::Ctrl('c') => return Some(Effect::Quit),
            Key::Ctrl('z') => return Some(Effect::Suspend),
            Key::Ctrl('l') => return Some(Effect::Redraw),
            _ => {}
        }
        match self.prompt.clone() {
            Some(Prompt::Filter) => {
                self.filter_key(key);
                None
            }
            Some(Prompt::Donate(on)) => {
                self.prompt = None;
                matches!(key, Key::Char('y' | 'Y')).then_some(Effect::Ask(Ask::SetDonating(on)))
            }
            None if self.help => {
                self.help = false;
                (key == Key::Char('q')).then_some(Effect::Quit)
            }
            None => self.command(key),
        }
    }

    fn filter_key(&mut self, key: Key) {
        match key {
            Key::Enter => self.prompt = None,
            Key::Esc => {
                self.prompt = None;
                self.filter.clear();
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.build();
    }

    fn command(&mut self, key: Key) -> Option<Effect> {
        let (at, page) = (self.chosen().at, self.page.max(1));
        match key {
            Key::Char('q') => return Some(Effect::Quit),
            Key::Char(digit @ '1'..='6') => self.show(digit as usize - '1' as usize),
            Key::Tab | Key::Right => self.turn(1),
            Key::BackTab | Key::Left => self.turn(SCREENS.len() - 1),
            Key::Up | Key::Char('k') => self.select(at.saturating_sub(1)),
            Key::Down | Key::Char('j') => self.select(at + 1),
            Key::PageUp => self.select(at.saturating_sub(page)),
            Key::PageDown => self.select(at + page),
            Key::Home => self.select(0),
            Key::End => self.select(usize::MAX),
            Key::Char('s') => self.sort_next(),
            Key::Char('S') => {
                self.choose().descending = !self.chosen().descending;
                self.build();
            }
            Key::Char('/') => self.prompt = Some(Prompt::Filter),
            Key::Esc => {
                self.filter.clear();
                self.build();
            }
            Key::Char('i') => self.next_span(),
            Key::Char('r') => self.mark(),
            Key::Char('c') if self.screen() == Screen::Locks => self.toggle_classes(),
            Key::Char('p' | ' ') => return self.toggle_pause(),
            Key::Char('f') | Key::Enter => return self.toggle_freeze(),
            Key::Char('d') => self.ask_donate(),
            Key::Char('?' | 'h') => self.help = true,
            _ => {}
        }
        None
    }

    fn ask_donate(&mut self) {
        let data = self.data();
        match (&data.view, &data.missing) {
            (Some(_), None) => self.prompt = Some(Prompt::Donate(!data.donating)),
            _ => self.message = Some("there is no scheduler to switch now".into()),
        }
    }
}
