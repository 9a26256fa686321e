// SPDX-License-Identifier: GPL-2.0-only
//! The bytes between the scheduler and its watcher, on a pair of sockets. One way go frames: a batch of
//! events each, without names. Other way go single bytes: that it is ready, that a frame was taken in, that
//! all waits are asked for. Both ends are one program.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crossbeam::channel::{Receiver, Sender, bounded};
use log::debug;

use crate::abi::EVENT_BYTES;
use crate::events::{Batch, Event};

/// What the watcher says.
const READY: u8 = b'R';
const TAKEN: u8 = b'T';
const RESTATE: u8 = b'S';

const SNAPSHOT: u32 = 1;
const RESTATED: u32 = 2;
const DONATING: u32 = 4;
const HEADER_BYTES: usize = 16;
/// Of one frame; the agent's batches have fewer.
const EVENTS_MAX: usize = 1 << 20;
/// Frames that the watcher has read and not taken in yet.
const AHEAD: usize = 64;

fn encode(batch: &Batch, into: &mut Vec<u8>) {
    let flag = |set, bit| if set { bit } else { 0 };
    let flags = flag(batch.snapshot, SNAPSHOT)
        | flag(batch.restated, RESTATED)
        | flag(batch.donating, DONATING);
    into.clear();
    into.extend_from_slice(&(batch.events.len() as u32).to_ne_bytes());
    into.extend_from_slice(&flags.to_ne_bytes());
    into.extend_from_slice(&batch.lost.to_ne_bytes());
    Event::write_all(&batch.events, into);
}

/// Reads one frame; `None`: there are no more.
pub fn read_frame(from: &mut impl Read) -> Result<Option<Batch>> {
    let mut header = [0; HEADER_BYTES];
    match from.read_exact(&mut header) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("the feed")?,
    }
    let word = |at: usize| Some(u32::from_ne_bytes(*header[at..].first_chunk()?));
    let (nr_events, flags) = word(0).zip(word(4)).context("a header")?;
    let lost = header[8..].first_chunk().context("a header")?;
    let nr_events = nr_events as usize;
    ensure!(nr_events <= EVENTS_MAX, "a frame of {nr_events} events");
    let mut bytes = vec![0; nr_events * EVENT_BYTES];
    from.read_exact(&mut bytes).context("the feed")?;
    Ok(Some(Batch {
        events: Event::read_all(&bytes, EVENT_BYTES),
        snapshot: flags & SNAPSHOT != 0,
        restated: flags & RESTATED != 0,
        donating: flags & DONATING != 0,
        lost: u64::from_ne_bytes(*lost),
        ..Batch::default()
    }))
}

/// The scheduler's end. Nothing here waits for the watcher.
pub struct Feeder {
    stream: UnixStream,
    /// A frame, and how much of it has been sent.
    frame: Vec<u8>,
    at: usize,
    /// Frames that were begun, and that the watcher has taken in.
    sent: u64,
    taken: u64,
    /// The last write found no room.
    full: bool,
    /// When the watcher last took something, said something, or owed nothing.
    moved: Instant,
}

/// What the watcher said since it was last listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its socket is there.
    pub ready: bool,
    /// It wants to know all waits.
    pub restate: bool,
    /// It has gone.
    pub gone: bool,
}

impl Feeder {
    /// `stream` does not block.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            frame: Vec::new(),
            at: 0,
            sent: 0,
            taken: 0,
            full: false,
            moved: Instant::now(),
        }
    }

    /// Whether the next frame may be put.
    pub fn is_free(&self) -> bool {
        self.at == self.frame.len()
    }

    /// For how long the watcher has owed something, and done nothing.
    pub fn stalled(&self) -> Duration {
        if self.is_free() && self.sent == self.taken {
            return Duration::ZERO;
        }
        self.moved.elapsed()
    }

    /// Begins a frame; the one before has been sent.
    pub fn put(&mut self, batch: &Batch) {
        if self.sent == self.taken {
            self.moved = Instant::now();
        }
        encode(batch, &mut self.frame);
        self.at = 0;
        self.sent += 1;
        self.push();
    }

    /// Sends what there is room for. A watcher that has gone shows in `listen`.
    pub fn push(&mut self) {
        while !self.is_free() {
            match self.stream.write(&self.frame[self.at..]) {
                Ok(0) => return,
                Ok(bytes) => {
                    self.at += bytes;
                    // it made room; that there was some before says nothing of it
                    if std::mem::take(&mut self.full) {
                        self.moved = Instant::now();
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.full = true;
                    return;
                }
            }
        }
    }

    /// Waits for something to be done, or for `period`. Not on a futex: see the agent's `attend()`.
    pub fn wait(&self, period: Duration) {
        let room = if self.is_free() { 0 } else { libc::POLLOUT };
        let mut asked = libc::pollfd {
            fd: self.stream.as_raw_fd(),
            events: libc::POLLIN | room,
            revents: 0,
        };
        let period_ms = i32::try_from(period.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&mut asked, 1, period_ms) };
    }

    /// What the watcher has said.
    pub fn listen(&mut self) -> Said {
        let mut said = Said::default();
        let mut bytes = [0; 256];
        loop {
            let nr = match self.stream.read(&mut bytes) {
                Ok(0) => {
                    said.gone = true;
                    return said;
                }
                Ok(nr) => nr,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    said.gone |= e.kind() != ErrorKind::WouldBlock;
                    return said;
                }
            };
            for byte in &bytes[..nr] {
                match *byte {
                    READY => said.ready = true,
                    RESTATE => said.restate = true,
                    _ => self.taken = (self.taken + 1).min(self.sent),
                }
            }
            self.moved = Instant::now();
        }
    }
}

/// What the watcher says goes here.
#[derive(Clone)]
pub struct Outbox(Arc<Mutex<UnixStream>>);

impl Outbox {
    /// `stream` is the watcher's end of the feed.
    pub fn new(stream: UnixStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    fn say(&self, what: u8) {
        // a scheduler that has gone shows where frames are read
        if let Ok(mut stream) = self.0.lock() {
            let _ = stream.write_all(&[what]);
        }
    }

    /// The socket is there.
    pub fn ready(&self) {
        self.say(READY);
    }

    /// All waits are wanted.
    pub fn restate(&self) {
        self.say(RESTATE);
    }
}

/// Reads frames in a thread of its own; the stream of batches ends with the scheduler.
///
/// # Errors
/// No thread could be started.
pub fn listen(mut stream: UnixStream, outbox: Outbox) -> Result<Receiver<Batch>> {
    let (batches, receive) = bounded(AHEAD);
    let read = move || match hand_on(&mut stream, &batches, &outbox) {
        Ok(()) => {}
        Err(e) => debug!("watcher: {e:#}"),
    };
    let thread = std::thread::Builder::new().name("proxy_feed".into());
    thread.spawn(read).context("thread that is fed")?;
    Ok(receive)
}

fn hand_on(stream: &mut UnixStream, batches: &Sender<Batch>, outbox: &Outbox) -> Result<()> {
    while let Some(batch) = read_frame(stream)? {
        // an empty one only asks whether somebody is there
        if !batch.is_new() && batches.send(batch).is_err() {
            bail!("the watcher does not read events");
        }
        outbox.say(TAKEN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::event::tests::block;

    fn batch(events: usize) -> Batch {
        Batch {
            events: vec![block(7, 1, 8, 0, 1); events],
            snapshot: true,
            lost: 3,
            donating: true,
            ..Batch::default()
        }
    }

    fn pair() -> (Feeder, UnixStream) {
        let (ours, theirs) = super::super::feed_pair().expect("a pair");
        (Feeder::new(ours), theirs.into())
    }

    #[test]
    fn a_batch_survives_the_way() {
        let (mut feeder, theirs) = pair();
        let batches = listen(
            theirs.try_clone().expect("a copy"),
            Outbox::new(theirs.try_clone().expect("a copy")),
        );
        let batches = batches.expect("a thread");
        feeder.put(&batch(2));
        let taken = batches.recv_timeout(Duration::from_secs(5)).expect("taken");
        assert_eq!(taken.events, batch(2).events);
        assert_eq!(
            (taken.snapshot, taken.restated, taken.lost, taken.donating),
            (true, false, 3, true)
        );
        while feeder.stalled() > Duration::ZERO {
            feeder.wait(Duration::from_millis(10));
            assert!(!feeder.listen().gone);
        }
        drop(feeder);
        assert!(batches.recv_timeout(Duration::from_secs(5)).is_err());
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (mut feeder, _theirs) = pair();
        feeder.put(&batch(100_000));
        assert!(!feeder.is_free(), "eight megabytes fit into no socket");
        std::thread::sleep(Duration::from_millis(20));
        assert!(feeder.stalled() >= Duration::from_millis(20));
        assert_eq!(feeder.listen(), Said::default());
    }

    #[test]
    fn room_in_the_socket_is_no_sign_of_life() {
        let (mut feeder, mut theirs) = pair();
        for _ in 0..3 {
            feeder.put(&batch(1));
            assert!(feeder.is_free());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(feeder.stalled() >= Duration::from_millis(60));
        // a frame that does not fit: room is made by who reads
        feeder.put(&batch(100_000));
        assert!(feeder.stalled() >= Duration::from_millis(60));
        theirs.read_exact(&mut [0; 1 << 16]).expect("a part of it");
        feeder.push();
        assert!(feeder.stalled() < Duration::from_millis(60));
    }

    #[test]
    fn who_has_gone_is_noticed() {
        let (mut feeder, theirs) = pair();
        drop(theirs);
        feeder.put(&batch(1));
        assert!(feeder.listen().gone);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut huge = Vec::new();
        encode(&batch(0), &mut huge);
        huge[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(read_frame(&mut huge.as_slice()).is_err());
        let mut cut = Vec::new();
        encode(&batch(1), &mut cut);
        assert!(read_frame(&mut &cut[..cut.len() - 1]).is_err());
        assert!(read_frame(&mut &cut[..0]).expect("an end").is_none());
    }
}
