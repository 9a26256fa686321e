// SPDX-License-Identifier: GPL-2.0-only
//! Keys from the terminal. Read by ourselves: crossterm's reader spins for ever on a terminal that
//! has gone away.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// Time within which the rest of a key's sequence comes, else it was Esc.
const ESC_WAIT: Duration = Duration::from_millis(50);

/// A key as `top` knows it.
#[allow(missing_docs)] // they say what they are
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Ctrl(char),
    Enter,
    Esc,
    Tab,
    BackTab,
    Backspace,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The reading end of the terminal.
pub struct Input {
    tty: File,
    /// The beginning of a sequence.
    begun: Vec<u8>,
}

impl Input {
    /// The standard input, or if that is something else the controlling terminal.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let tty = if stdin.is_terminal() {
            File::from(stdin.as_fd().try_clone_to_owned()?)
        } else {
            File::open("/dev/tty")?
        };
        let begun = Vec::new();
        Ok(Self { tty, begun })
    }

    /// The keys that come first within `timeout`, maybe none. `None`: the terminal is gone.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn keys(&mut self, timeout: Duration) -> io::Result<Option<Vec<Key>>> {
        let begun = !self.begun.is_empty();
        if !self.readable(if begun { ESC_WAIT } else { timeout })? {
            return Ok(Some(take_keys(&mut self.begun, true)));
        }
        let mut bytes = [0; 512];
        match self.tty.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(got) => self.begun.extend_from_slice(&bytes[..got]),
            Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(None),
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(e) => return Err(e),
        }
        Ok(Some(take_keys(&mut self.begun, false)))
    }

    /// Whether a read would not block: there are bytes, or none will come any more.
    fn readable(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.tty.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one pollfd, which lives across the call.
        match unsafe { libc::poll(&raw mut poll, 1, ms) } {
            -1 => {
                let error = io::Error::last_os_error();
                // a signal: the caller looks at its flags
                let signal = error.kind() == ErrorKind::Interrupted;
                if signal { Ok(false) } else { Err(error) }
            }
            ready => Ok(ready > 0),
        }
    }
}

/// Takes the keys off the front of `bytes`; a sequence that is not whole stays, unless it is the `last`.
fn take_keys(bytes: &mut Vec<u8>, last: bool) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match first_key(rest) {
            Some((key, used)) => {
                keys.extend(key);
                at += used;
            }
            None if last => {
                keys.extend((rest[0] == 0x1b).then_some(Key::Esc));
                at += 1;
            }
            None => break,
        }
    }
    bytes.drain(..at);
    keys
}

/// The first key in `bytes` (`None`: one that means nothing here) and its length; `None`: not whole.
fn first_key(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    match bytes[0] {
        0x1b => return sequence(bytes),
        b'\r' | b'\n' => return Some((Some(Key::Enter), 1)),
        b'\t' => return Some((Some(Key::Tab), 1)),
        0x08 | 0x7f => return Some((Some(Key::Backspace), 1)),
        control @ 1..=26 => return Some((Some(Key::Ctrl((control - 1 + b'a') as char)), 1)),
        0..0x20 | 0x80..0xc0 | 0xf8.. => return Some((None, 1)),
        _ => {}
    }
    let len = match bytes[0] {
        0..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    let text = std::str::from_utf8(bytes.get(..len)?).ok();
    let char = text.and_then(|text| text.chars().next());
    Some((char.map(Key::Char), if char.is_some() { len } else { 1 }))
}

/// ESC [ parameters final, ESC O final, or ESC and another key, which counts as both.
fn sequence(bytes: &[u8]) -> Option<(Option<Key>, usize)> {
    let kind = *bytes.get(1)?;
    if kind != b'[' && kind != b'O' {
        return Some((Some(Key::Esc), 1));
    }
    let body = &bytes[2..];
    let end = body.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
    let number = body[..end].split(|byte| *byte == b';').next();
    let key = match (body[end], number) {
        (b'A', _) => Some(Key::Up),
        (b'B', _) => Some(Key::Down),
        (b'C', _) => Some(Key::Right),
        (b'D', _) => Some(Key::Left),
        (b'H', _) | (b'~', Some(b"1" | b"7")) => Some(Key::Home),
        (b'F', _) | (b'~', Some(b"4" | b"8")) => Some(Key::End),
        (b'~', Some(b"5")) => Some(Key::PageUp),
        (b'~', Some(b"6")) => Some(Key::PageDown),
        (b'M', _) if kind == b'O' => Some(Key::Enter),
        (b'Z', _) => Some(Key::BackTab),
        _ => None,
    };
    Some((key, end + 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        take_keys(&mut bytes.to_vec(), true)
    }

    #[test]
    fn keys_and_sequences_are_told_apart() {
        assert_eq!(
            keys(b"q\x03\r\t\x7f\x1b[A\x1bOB\x1b[5~\x1b[6;5~\x1b[H\x1b[4~\x1b[Z"),
            [
                Key::Char('q'),
                Key::Ctrl('c'),
                Key::Enter,
                Key::Tab,
                Key::Backspace,
                Key::Up,
                Key::Down,
                Key::PageUp,
                Key::PageDown,
                Key::Home,
                Key::End,
                Key::BackTab
            ]
        );
        assert_eq!(keys("é日".as_bytes()), [Key::Char('é'), Key::Char('日')]);
        assert_eq!(keys(b"\x1b"), [Key::Esc]);
        assert_eq!(
            keys(b"\x1b[15~\xff\x00x"),
            [Key::Char('x')],
            "unknown ones are nothing"
        );
    }

    #[test]
    fn a_sequence_in_pieces_is_waited_for() {
        let mut bytes = b"a\x1b[".to_vec();
        assert_eq!(take_keys(&mut bytes, false), [Key::Char('a')]);
        bytes.push(b'B');
        assert_eq!(take_keys(&mut bytes, false), [Key::Down]);
        assert!(bytes.is_empty());
        let mut bytes = "日".as_bytes()[..2].to_vec();
        assert!(take_keys(&mut bytes, false).is_empty());
        assert_eq!(bytes.len(), 2);
    }

    #[test]
    fn esc_is_not_kept_for_later() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let tty = File::from(std::os::fd::OwnedFd::from(reader));
        let begun = Vec::new();
        let mut input = Input { tty, begun };
        io::Write::write_all(&mut writer, b"\r\x1b").expect("room");
        let mut keys = || input.keys(Duration::from_secs(30)).expect("no error");
        assert_eq!(keys(), Some(vec![Key::Enter]));
        assert_eq!(keys(), Some(vec![Key::Esc]));
        drop(writer);
        assert_eq!(keys(), None, "the terminal is gone");
    }

    /// Whatever comes, it ends, and uses everything up.
    #[test]
    fn any_bytes_are_digested() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let mut bytes = vec![0x1b, first, second, first];
                take_keys(&mut bytes, true);
                assert!(bytes.is_empty());
            }
        }
    }
}
