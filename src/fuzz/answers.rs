// SPDX-License-Identifier: GPL-2.0-only
//! What a client makes of a server's answer. The watcher reads files of users: whatever became of it, root's
//! terminal takes no harm from what it says. The first byte says what was asked for; the rest is the answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::stats::socket;
use crate::client::Client;
use crate::stats::{GroupRow, Metrics};
use crate::top::app::App;
use crate::top::source::Reading;
use crate::top::theme::Theme;
use crate::top::worker::Update;
use crate::top::{draw, once};
use crate::watch::{View, Watch};

/// What the server below answers.
static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn answer() -> MutexGuard<'static, Vec<u8>> {
    ANSWER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// It says that it is its own watcher, and to anything else what is in [`ANSWER`].
static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = socket("answers");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path);
    let listener = listener.unwrap_or_else(|error| panic!("no socket: {error}"));
    let resp = serde_json::json!({"errno": 0, "args": {"resp": {"socket": path}}});
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut line = String::new();
            let _ = BufReader::new(&stream).read_line(&mut line);
            let _ = match line.contains(r#""target":"watcher""#) {
                // what is asked for comes over another connection
                true => writeln!(&stream, "{resp}"),
                // and hangs up: the answer may have no end
                false => (&stream).write_all(&answer()),
            };
        }
    });
    path
});

fn bytes_to_server(bytes: &[u8]) {
    bytes.clone_into(&mut answer());
}

pub fn run(input: &[u8]) {
    let Some((choice, bytes)) = super::chosen(input) else {
        return;
    };
    // one after the other, if there are more threads
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    bytes_to_server(bytes);
    let Ok(mut client) = Client::connect(&SERVER) else {
        panic!("no connection to the server of this test");
    };
    match choice % 5 {
        0 => {
            if let Ok(view) = client.view(100) {
                show(view, None, Vec::new());
            }
        }
        1 => {
            if let Ok(batch) = client.batch() {
                let mut watch = Watch::new(0);
                watch.learn(&batch);
                show(watch.view(1, 100), None, Vec::new());
            }
        }
        2 => {
            if let Ok(metrics) = client.metrics() {
                show(View::default(), Some(metrics), Vec::new());
            }
        }
        3 => {
            if let Ok(groups) = client.groups() {
                let named = groups.into_iter().map(|group| ("/".to_owned(), group));
                show(View::default(), None, named.collect());
            }
        }
        _ => drop(client.history(1)),
    }
}

/// As `top` does, once and twice, and `top --once`.
fn show(view: View, metrics: Option<Metrics>, groups: Vec<(String, GroupRow)>) {
    let reading = || Reading {
        view: view.clone(),
        metrics: metrics.clone(),
        groups: groups.clone(),
    };
    super::assert_printable(&once::tables(reading()));
    let Ok(mut terminal) = Terminal::new(TestBackend::new(100, 12));
    let mut app = App::new();
    for key in "123456".chars() {
        app.update(Update::Reading(Box::new(reading()), None));
        app.key(crate::top::input::Key::Char(key));
        let theme = Theme::new(true);
        let drawn =
            terminal.draw(|frame| draw::draw(&mut app, theme, frame.area(), frame.buffer_mut()));
        assert!(drawn.is_ok());
    }
    for cell in terminal.backend().buffer().content() {
        super::assert_printable(cell.symbol());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server says goes through the client, to the screen: else nothing here would be looked at.
    #[test]
    fn an_answer_arrives() {
        let seed = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fuzz/seeds/answers/view-hostile"
        );
        let seed = std::fs::read(seed).expect("a seed");
        bytes_to_server(&seed[1..]);
        let mut client = Client::connect(&SERVER).expect("a server");
        let view = client.view(1).expect("a view");
        assert_eq!(view.tasks[0].task.comm, "\x1b[2J\nevil");
    }
}
