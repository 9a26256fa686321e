// SPDX-License-Identifier: GPL-2.0-only
//! The terminal as a screen, and its way back to what it was: on the end, on an error, on a panic,
//! and when the program aborts because its heap, which has a fixed size, is full.

use std::io::{self, BufWriter, Stdout, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

/// Whether the terminal is ours. The thread that restores it clears this, so that it happens once.
static OURS: AtomicBool = AtomicBool::new(false);
/// Its modes before it was.
static MODES: OnceLock<libc::termios> = OnceLock::new();

/// The terminal while it is ours.
pub struct Screen(Drawn);

type Drawn = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn open() -> io::Result<Self> {
        if MODES.set(modes()?).is_ok() {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                give_back();
                before(info);
            }));
            let handler: extern "C" fn(libc::c_int) = on_abort;
            // SAFETY: the handler does only what a signal handler may.
            unsafe { libc::signal(libc::SIGABRT, handler as libc::sighandler_t) };
        }
        take()
            .and_then(|()| blank())
            .map(Self)
            .inspect_err(|_| give_back())
    }

    /// Draws what differs from what stands there.
    ///
    /// # Errors
    /// Those of the terminal; also if it has been given back, since a thread panicked.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !OURS.load(Ordering::Relaxed) {
            return Err(io::Error::other("the terminal was given back"));
        }
        self.0.draw(draw).map(|_| ())
    }

    /// Columns and lines.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        self.0.size().map(|size| (size.width, size.height))
    }

    /// Forgets what stands there, so that all is drawn anew; takes the terminal again, too.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn redraw(&mut self) -> io::Result<()> {
        take()?;
        // not Terminal::clear: that asks the terminal for its cursor, and we would read the answer
        self.0 = blank()?;
        Ok(())
    }

    /// Gives the terminal back, and stops until the shell has us go on.
    ///
    /// # Errors
    /// Those of the terminal.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SAFETY: no memory is passed. All of the group stops, as by the terminal's own Ctrl-Z.
        unsafe { libc::kill(0, libc::SIGTSTP) };
        self.redraw()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Also when it is ours already, and somebody else set it up differently meanwhile.
fn take() -> io::Result<()> {
    OURS.store(true, Ordering::Relaxed);
    disable_raw_mode()?;
    enable_raw_mode()?;
    execute!(
        io::stdout(),
        EnterAlternateScreen,
        Hide,
        Clear(ClearType::All)
    )
}

/// What is drawn on a screen on which nothing stands.
fn blank() -> io::Result<Drawn> {
    let out = BufWriter::with_capacity(1 << 16, io::stdout());
    Terminal::new(CrosstermBackend::new(out))
}

/// What fails here has gone away.
fn give_back() {
    if OURS.swap(false, Ordering::Relaxed) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

fn modes() -> io::Result<libc::termios> {
    let mut modes = MaybeUninit::uninit();
    // SAFETY: it has room for what is written.
    match unsafe { libc::tcgetattr(io::stdout().as_raw_fd(), modes.as_mut_ptr()) } {
        // SAFETY: it has been written.
        0 => Ok(unsafe { modes.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives the terminal back without any memory, and lets the signal do its work.
extern "C" fn on_abort(signal: libc::c_int) {
    const LEAVE: &[u8] = b"\x1b[?1049l\x1b[?25h";
    if OURS.swap(false, Ordering::Relaxed)
        && let Some(modes) = MODES.get()
    {
        // SAFETY: both may be called here, and what they get lives for ever.
        unsafe {
            libc::write(libc::STDOUT_FILENO, LEAVE.as_ptr().cast(), LEAVE.len());
            libc::tcsetattr(libc::STDOUT_FILENO, libc::TCSANOW, modes);
        }
    }
    // SAFETY: no memory is passed; both may be called here.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Whether this is what a terminal that has gone away answers.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(libc::EIO)
}
