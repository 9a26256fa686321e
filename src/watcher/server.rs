// SPDX-License-Identifier: GPL-2.0-only
//! The targets of the watcher's socket: `watch`, `history`, `events`. `crate::client::Client` is the other
//! end. A connection that has asked for one of them counts as a client for as long as it lasts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use scx_stats::prelude::*;
use serde_json::Value;

use super::requests::Requests;
use crate::watch::wire;

/// Rows of each table of a view, unless `rows` says how many.
const ROWS: usize = 100;
const ROWS_MAX: usize = 1024;

/// How many watch.
#[derive(Debug, Default)]
pub struct Clients(AtomicUsize);

impl Clients {
    /// Whether somebody does.
    pub fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn arrive(self: &Arc<Self>) -> Presence {
        self.0.fetch_add(1, Ordering::Relaxed);
        Presence(self.clone())
    }
}

/// Of one target that a client has open.
struct Presence(Arc<Clients>);

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Args = BTreeMap<String, String>;
type Reader = Box<dyn StatsReader<(), ()>>;

/// The argument `name`, if there is one.
///
/// # Errors
/// It is no number.
fn number<T: std::str::FromStr>(args: &Args, name: &str) -> Result<Option<T>> {
    let Some(text) = args.get(name) else {
        return Ok(None);
    };
    let number = text.parse().ok();
    Ok(Some(
        number.with_context(|| format!("{name}={text} is no number"))?,
    ))
}

/// A target; `open` makes what answers one connection.
fn target<R>(
    clients: &Arc<Clients>,
    open: impl Fn() -> Result<R> + Send + 'static,
) -> StatsOps<(), ()>
where
    R: FnMut(&Args) -> Result<Value> + 'static,
{
    let clients = clients.clone();
    let open: Box<dyn StatsOpener<(), ()>> = Box::new(move |_channels| {
        let (present, mut read) = (clients.arrive(), open()?);
        let read: Reader = Box::new(move |args, _channels| {
            let _ = &present;
            read(args)
        });
        Ok(read)
    });
    StatsOps { open, close: None }
}

/// All targets.
pub fn server_data(requests: Requests, clients: Arc<Clients>) -> StatsServerData<(), ()> {
    let (views, histories) = (requests.clone(), requests.clone());
    // a view is copied several times on its way out
    let one_view = Arc::new(Mutex::new(()));
    let watch = move || {
        let (views, one_view) = (views.clone(), one_view.clone());
        Ok(move |args: &Args| {
            let _turn = one_view
                .lock()
                .map_err(|_| anyhow!("a view failed before"))?;
            let rows = number(args, "rows")?.unwrap_or(ROWS).min(ROWS_MAX);
            // as text: as values it would take ten times the room
            Ok(Value::String(serde_json::to_string(&views.view(rows)?)?))
        })
    };
    let history = move || {
        let histories = histories.clone();
        Ok(move |args: &Args| {
            let pid = number(args, "pid")?.context("history wants pid=NUMBER")?;
            Ok(serde_json::to_value(histories.history(pid)?)?)
        })
    };
    // each reader gets what happened since its own last read; the first time, what goes on
    let events = move || {
        let mut follower = requests.follow()?;
        Ok(move |_: &Args| wire::to_json(&follower.take()?))
    };
    StatsServerData::new()
        .add_ops("watch", target(&clients, watch))
        .add_ops("history", target(&clients, history))
        .add_ops("events", target(&clients, events))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::requests::{self, Request};
    use super::*;
    use crate::watch::View;

    #[test]
    fn clients_are_counted_while_they_are_connected() {
        let socket = std::env::temp_dir().join(format!("scx_proxy-{}.watch", std::process::id()));
        let (requests, incoming) = requests::channel();
        let clients = Arc::new(Clients::default());
        let server = StatsServer::new(server_data(requests, clients.clone())).set_path(&socket);
        let _server = server.launch().expect("a socket");
        std::thread::spawn(move || {
            for request in incoming {
                if let Request::View(rows, reply) = request {
                    let waiting_now = rows as u32;
                    let _ = reply.send(View {
                        waiting_now,
                        ..View::default()
                    });
                }
            }
        });
        let client = StatsClient::new().set_path(&socket);
        let mut client = client.connect(Some(5000)).expect("a connection");
        let mut ask = |args: &[(&str, &str)]| -> Result<Value> {
            let args = args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            client.request("stats", args.collect())
        };
        assert!(!clients.any(), "nothing was asked for");
        let view = ask(&[("target", "watch"), ("rows", "5000")]).expect("a view");
        let view = view.as_str().expect("text").to_owned();
        assert!(view.contains(r#""waiting_now":1024"#), "{view}");
        assert!(clients.any());
        for (args, why) in [
            (&[("target", "history")][..], "pid=NUMBER"),
            (&[("target", "history"), ("pid", "x")], "no number"),
        ] {
            let error = ask(args).expect_err("refused");
            assert!(format!("{error:?}").contains(why), "{args:?}: {error:?}");
        }
        drop(client);
        let began = Instant::now();
        while clients.any() {
            assert!(began.elapsed() < Duration::from_secs(5), "still counted");
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = std::fs::remove_file(&socket);
    }
}
