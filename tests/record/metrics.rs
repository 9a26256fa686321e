// SPDX-License-Identifier: GPL-2.0-only
//! `scx_proxy metrics`: scraped over loopback, read by a strict little parser.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use scx_proxy::events::Batch;
use scx_proxy::stats::Metrics;

use super::fake::{Fake, Folder, Running, scx_proxy, story, until};

/// A port of loopback that nobody listens on now.
fn free(ip: &str) -> Option<SocketAddr> {
    TcpListener::bind((ip, 0)).ok()?.local_addr().ok()
}

fn exporter(fake: &Fake, addr: SocketAddr) -> Running {
    let running = Running::new(&["metrics", &addr.to_string(), "--socket", fake.socket()]);
    until("it listens", || TcpStream::connect(addr).is_ok());
    running
}

/// Sends a request; returns head and body.
fn ask(addr: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(addr).expect("connects");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("a timeout");
    write!(stream, "{request} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

/// A metric family of an exposition.
#[derive(Default, Debug)]
struct Family {
    kind: String,
    unit: Option<String>,
    help: bool,
    /// by name and labels
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("a quoted value");
        let end = value.find('"').expect("its end");
        assert!(!value[..end].contains('\\'), "no escapes here");
        assert!(
            labels
                .insert(name.to_owned(), value[..end].to_owned())
                .is_none()
        );
        rest = &value[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    labels
}

/// Reads an exposition, and checks it: metadata before samples, suffixes by type, units at the
/// end of names, no series twice, buckets that grow up to the count.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with("\n# EOF\n"), "no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(about) = line.strip_prefix("# ") {
            let mut words = about.splitn(3, ' ');
            let mut next = || words.next().expect("a word");
            let (what, name, value) = (next(), next(), next());
            if name != current {
                assert!(!families.contains_key(name), "{name} is in two places");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty(), "{line} after samples");
            match what {
                "HELP" => family.help = true,
                "TYPE" => family.kind = value.to_owned(),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{value}")), "{line}");
                    family.unit = Some(value.to_owned());
                }
                _ => panic!("{line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().expect("a number");
        let (name, inside) = match series.split_once('{') {
            Some((name, inside)) => (name, inside.strip_suffix('}').expect("a brace")),
            None => (series, ""),
        };
        assert!(seen.insert(series.to_owned()), "{series} is there twice");
        let family = families.get_mut(&current).expect("a family");
        let suffix = name.strip_prefix(&current).expect("of this family");
        let allowed: &[&str] = match family.kind.as_str() {
            "counter" => &["_total"],
            "gauge" => &[""],
            "histogram" => &["_bucket", "_sum", "_count"],
            kind => panic!("{current} is a {kind}"),
        };
        assert!(allowed.contains(&suffix), "{line} in a {}", family.kind);
        family
            .samples
            .push((name.to_owned(), labels(inside), value));
    }
    for (name, family) in &families {
        assert!(family.help && !family.kind.is_empty(), "{name}: {family:?}");
        if family.kind == "histogram" {
            check_buckets(name, family);
        }
    }
    families
}

fn check_buckets(name: &str, family: &Family) {
    let mut last: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for (sample, labels, value) in &family.samples {
        let class = labels["class"].clone();
        if sample.ends_with("_bucket") {
            let le: f64 = labels["le"].parse().expect("a bound");
            let before = last.insert(class.clone(), (le, *value));
            let (bound, count) = before.unwrap_or((f64::NEG_INFINITY, 0.0));
            assert!(le > bound && *value >= count, "{name} {class} {le}");
        }
    }
    for (sample, labels, value) in &family.samples {
        if sample.ends_with("_count") {
            assert_eq!(last[&labels["class"]], (f64::INFINITY, *value), "{name}");
        }
    }
}

fn value(families: &BTreeMap<String, Family>, family: &str, name: &str, class: &str) -> f64 {
    let samples = families[family].samples.iter();
    let found = samples
        .filter(|(sample, labels, _)| {
            sample == name && labels.get("class").is_none_or(|is| is == class)
        })
        .map(|(.., value)| *value);
    found.sum()
}

#[test]
fn a_scrape_says_what_the_scheduler_did() {
    let folder = Folder::new();
    let fake = Fake::new(&folder, vec![story(1_000)]);
    let addr = free("127.0.0.1").expect("a port");
    let _running = exporter(&fake, addr);
    fake.wait_taken();
    // it counts what happens from its connection on
    *fake.metrics.lock().expect("a lock") = Metrics {
        cpus: 4,
        edges: 5,
        edges_mutex: 4,
        edges_rwsem: 1,
        donations: 3,
        donated_ns: 2_500_000_000,
        ..Metrics::default()
    };
    let scraped = || parse(&ask(addr, "GET /metrics").1);
    let wait = "scx_proxy_wait_seconds";
    until("all is counted", || {
        let families = scraped();
        value(&families, "scx_proxy_edges", "scx_proxy_edges_total", "") == 5.0
            && families[wait].samples.len() > 1
    });
    let (head, body) = ask(addr, "GET /metrics");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.contains(kind), "{head}");
    let families = parse(&body);
    assert_eq!(value(&families, "scx_proxy_up", "scx_proxy_up", ""), 1.0);
    assert_eq!(
        value(&families, "scx_proxy_cpus", "scx_proxy_cpus", ""),
        4.0
    );
    let (donated, total) = (
        "scx_proxy_donated_seconds",
        "scx_proxy_donated_seconds_total",
    );
    assert_eq!(value(&families, donated, total, ""), 2.5);
    assert_eq!(families[donated].unit.as_deref(), Some("seconds"));
    let mutex = "mutex fdget_pos";
    assert_eq!(
        value(&families, wait, "scx_proxy_wait_seconds_count", mutex),
        1.0
    );
    assert_eq!(
        value(&families, wait, "scx_proxy_wait_seconds_sum", mutex),
        0.02
    );
    let inversion = "scx_proxy_inversion_seconds";
    assert_eq!(
        value(
            &families,
            inversion,
            "scx_proxy_inversion_seconds_sum",
            mutex
        ),
        0.004
    );
    let depth = "scx_proxy_chain_depth_locks";
    assert_eq!(
        value(&families, depth, "scx_proxy_chain_depth_locks_count", mutex),
        1.0
    );
    assert!(!body.contains("ffff8880"), "no addresses");
    python_agrees(&body);

    // events that were lost are counted
    fake.give(Batch {
        lost: 7,
        ..Batch::default()
    });
    let lost = "scx_proxy_histogram_events_lost";
    until("losses are counted", || {
        value(
            &scraped(),
            lost,
            "scx_proxy_histogram_events_lost_total",
            "",
        ) == 7.0
    });
}

/// Where Python has prometheus_client, its parser has a say, too.
fn python_agrees(body: &str) {
    let code = "import sys\n\
        try: from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        except ImportError: sys.exit(0)\n\
        assert len(list(parse(sys.stdin.read()))) > 80";
    let python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", code])
        .stdin(std::process::Stdio::piped())
        .spawn();
    let Ok(mut python) = python else { return };
    let mut stdin = python.stdin.take().expect("a pipe");
    let _ = stdin.write_all(body.as_bytes());
    drop(stdin);
    assert!(python.wait().expect("ends").success(), "{body}");
}

#[test]
fn there_is_nothing_else_to_get() {
    let folder = Folder::new();
    let fake = Fake::new(&folder, Vec::new());
    let addr = free("127.0.0.1").expect("a port");
    let _running = exporter(&fake, addr);
    assert!(ask(addr, "GET /").0.starts_with("http/1.1 404"));
    assert!(ask(addr, "GET /metrics/x").0.starts_with("http/1.1 404"));
    assert!(ask(addr, "GET /metrics?x=1").0.starts_with("http/1.1 200"));
    let (head, _) = ask(addr, "DELETE /metrics");
    assert!(
        head.starts_with("http/1.1 405") && head.contains("allow: get, head"),
        "{head}"
    );
    let (head, body) = ask(addr, "HEAD /metrics");
    assert!(
        head.starts_with("http/1.1 200") && body.is_empty(),
        "{head}"
    );
    assert!(
        head.contains("openmetrics-text") && head.contains("content-length: "),
        "{head}"
    );
}

#[test]
fn who_is_slow_or_speaks_no_http_does_not_keep_others_waiting() {
    let folder = Folder::new();
    let fake = Fake::new(&folder, Vec::new());
    let addr = free("127.0.0.1").expect("a port");
    let running = exporter(&fake, addr);
    let mut idle: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(addr).expect("connects"))
        .collect();
    for (nr, stream) in idle.iter_mut().enumerate() {
        let begins = ["", "GET /metr", "\0\u{1}\u{2}nonsense\r\n\r\n"][nr % 3];
        let _ = stream.write_all(begins.as_bytes());
    }
    let began = Instant::now();
    assert!(ask(addr, "GET /metrics").1.ends_with("# EOF\n"));
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    let tasks = std::fs::read_dir(format!("/proc/{}/task", running.0.id())).expect("threads");
    assert!(tasks.count() <= 4, "threads are few");
    // a head without end
    let mut endless = TcpStream::connect(addr).expect("connects");
    let _ = endless.write_all(b"GET /metrics HTTP/1.1\r\n");
    let line = [b'a'; 1024];
    while endless.write_all(&line).is_ok() && began.elapsed() < Duration::from_secs(15) {}
    assert!(ask(addr, "GET /metrics").1.ends_with("# EOF\n"));
    let out = running.terminate();
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn an_address_in_use_is_said_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("its address").to_string();
    let out = scx_proxy(&["metrics", &addr]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(1));
    assert!(said.contains(&addr) && said.contains("in use"), "{said}");
    let out = scx_proxy(&["metrics", "nowhere"]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("nowhere"));
}

#[test]
fn without_a_scheduler_it_is_down_until_there_is_one() {
    let folder = Folder::new();
    let Some(addr) = free("::1") else { return };
    let socket = folder.text("stats");
    let _running = Running::new(&["metrics", &addr.to_string(), "--socket", &socket]);
    until("it listens", || TcpStream::connect(addr).is_ok());
    let up = || {
        value(
            &parse(&ask(addr, "GET /metrics").1),
            "scx_proxy_up",
            "scx_proxy_up",
            "",
        )
    };
    assert_eq!(up(), 0.0);
    let _fake = Fake::new(&folder, Vec::new());
    until("it is up", || up() == 1.0);
}

/// What is counted goes on where it was: neither back, nor by what the new one had counted before.
#[test]
fn counters_go_on_over_a_restart_of_the_scheduler() {
    let folder = Folder::new();
    let Some(addr) = free("127.0.0.1") else {
        return;
    };
    let fake = Fake::new(&folder, vec![story(1)]);
    let counted = |edges| Metrics {
        edges,
        edges_mutex: edges,
        ..Metrics::default()
    };
    *fake.metrics.lock().expect("a lock") = counted(1000);
    let _running = exporter(&fake, addr);
    let page = || parse(&ask(addr, "GET /metrics").1);
    let edges = || value(&page(), "scx_proxy_edges", "scx_proxy_edges_total", "");
    let up = || value(&page(), "scx_proxy_up", "scx_proxy_up", "");
    let waits = || {
        let families = page();
        let samples = families["scx_proxy_wait_seconds"].samples.iter();
        let counts = samples.filter(|(name, ..)| name.ends_with("_count"));
        counts.map(|(.., value)| value).sum::<f64>()
    };
    until("it is up", || up() == 1.0);
    *fake.metrics.lock().expect("a lock") = counted(1007);
    until("edges are counted", || edges() == 7.0);
    until("waits are counted", || waits() == 2.0);
    drop(fake);
    until("it is down", || up() == 0.0);
    // counted from zero again
    let fake = Fake::new(&folder, vec![story(1)]);
    until("it is up again", || up() == 1.0);
    *fake.metrics.lock().expect("a lock") = counted(3);
    until("edges are counted again", || edges() == 10.0);
    until("waits are counted again", || waits() == 4.0);
}
