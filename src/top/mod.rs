// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy top`: who waits for what, live, in a terminal.
//!
//! Data flow: a [`Source`] (`source`: a running scheduler, or whatever else says the same) is asked
//! by a thread of its own (`worker`) → [`Update`](worker::Update)s → `app`, which keeps what is
//! known (`data`) and what the user chose (`keys`), and makes rows of it (`screens`, `table`) →
//! `draw`. Only this file and `terminal` do I/O with the terminal. All memory is bounded: the
//! program's heap has a fixed size.

pub mod actions;
pub mod app;
pub mod data;
pub mod draw;
pub mod freeze;
pub mod header;
pub mod input;
pub mod keys;
pub mod once;
pub mod screens;
pub mod source;
pub mod sums;
pub mod table;
pub mod terminal;
pub mod text;
pub mod theme;
pub mod worker;

#[cfg(test)]
mod tests;

pub use source::{Live, Reading, Source};

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use self::app::{App, Effect};
use self::input::Input;
use self::terminal::Screen;
use self::theme::Theme;
use self::worker::Worker;
use crate::cli::TopOpts;
use crate::output;

/// Longest time until something that happened is seen: an answer, a new size, a signal.
const TICK: Duration = Duration::from_millis(100);
/// Time that a terminal which takes nothing has, after a signal, before we end without it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs `scx_proxy top` on a scheduler.
///
/// # Errors
/// There is no scheduler to print one view of, or the terminal fails.
pub fn run(opts: &TopOpts) -> Result<()> {
    let mut source = Live::new(&opts.socket);
    if !opts.once {
        let Some(why) = no_screen() else {
            return show(Box::new(source), Duration::from_secs_f64(opts.interval));
        };
        let _ = writeln!(io::stderr(), "{why}: this is one view, as by --once");
    }
    let reading = source.read_once()?;
    let text = if opts.json {
        once::json(&reading.view)?
    } else {
        once::tables(reading)
    };
    Ok(output::print(&text)?)
}

/// Why there can be no screen.
fn no_screen() -> Option<&'static str> {
    if !io::stdout().is_terminal() {
        return Some("stdout is no terminal");
    }
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    dumb.then_some("TERM is dumb")
}

/// Shows `source` on the terminal until the user has seen enough, or the terminal goes away.
///
/// # Errors
/// The terminal cannot be used, or a thread failed.
pub fn show(source: Box<dyn Source>, interval: Duration) -> Result<()> {
    let ended = on_signals()?;
    let mut input = Input::open().context("reading the terminal")?;
    let worker = Worker::start(source, interval).context("a thread for the source")?;
    let mut screen = Screen::open().context("setting up the terminal")?;
    match attend(&mut screen, &mut input, &worker, &ended) {
        // there is no reader left
        Err(error) if error.downcast_ref().is_some_and(terminal::is_gone) => Ok(()),
        other => other,
    }
}

/// A flag that SIGINT, SIGTERM and SIGHUP set.
fn on_signals() -> Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let flag = ended.clone();
    ctrlc::set_handler(move || {
        flag.store(true, Ordering::Relaxed);
        // the terminal may be stuck in a write of ours
        std::thread::sleep(PATIENCE);
        std::process::exit(0);
    })
    .context("handler for signals")?;
    Ok(ended)
}

fn attend(
    screen: &mut Screen,
    input: &mut Input,
    worker: &Worker,
    ended: &AtomicBool,
) -> Result<()> {
    let theme = Theme::from_env();
    let mut app = App::new();
    let mut drawn_for = None;
    while !ended.load(Ordering::Relaxed) {
        while let Some(update) = worker.next()? {
            let effect = app.update(update);
            act(effect, &mut app, screen, worker)?;
            drawn_for = None;
        }
        let size = screen.size()?;
        if drawn_for != Some(size) {
            screen.draw(|frame| draw::draw(&mut app, theme, frame.area(), frame.buffer_mut()))?;
            drawn_for = Some(size);
        }
        let Some(keys) = input.keys(TICK)? else {
            return Ok(()); // the terminal is gone
        };
        for key in keys {
            let effect = app.key(key);
            if effect == Some(Effect::Quit) {
                return Ok(());
            }
            act(effect, &mut app, screen, worker)?;
            drawn_for = None;
        }
    }
    Ok(())
}

fn act(effect: Option<Effect>, app: &mut App, screen: &mut Screen, worker: &Worker) -> Result<()> {
    match effect {
        Some(Effect::Suspend) => screen.suspend()?,
        Some(Effect::Redraw) => screen.redraw()?,
        Some(Effect::Ask(ask)) => {
            // a history is asked for again with the next reading
            let is_switch = matches!(ask, worker::Ask::SetDonating(_));
            if !worker.ask(ask) && is_switch {
                app.message = Some("the scheduler does not answer: not switched".into());
            }
        }
        Some(Effect::Quit) | None => {}
    }
    Ok(())
}
