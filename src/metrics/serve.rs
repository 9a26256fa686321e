// SPDX-License-Identifier: GPL-2.0-only
//! The HTTP server: `/metrics` and nothing else, a request a connection. One thread serves all;
//! a connection has a deadline, and there are only so many.

use std::convert::Infallible;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Connections at a time; the next waits until one is done or over.
const CONNECTIONS: usize = 32;
/// Longest time from a connection's beginning to its end.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest head of a request.
const HEAD_BYTES: usize = 8 << 10;
/// How soon it is seen that the exporter stops.
const PERIOD: Duration = Duration::from_millis(200);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `registry` until `stop` is set.
///
/// # Errors
/// The listener cannot be used.
pub fn run(listener: TcpListener, registry: Registry, stop: &AtomicBool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, accept(listener, Rc::new(registry), stop))
}

async fn accept(listener: TcpListener, registry: Rc<Registry>, stop: &AtomicBool) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        let permit = room.clone().acquire_owned().await?;
        let Ok(accepted) = tokio::time::timeout(PERIOD, listener.accept()).await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let registry = registry.clone();
                connections.spawn_local(async move {
                    serve(stream, &registry).await;
                    drop(permit);
                });
            }
            // too many files are open, say: not for ever
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
    Ok(())
}

async fn serve(stream: TcpStream, registry: &Registry) {
    let service =
        service_fn(|request| async move { Ok::<_, Infallible>(answer(&request, registry)) });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // who is too slow, or does not speak HTTP, gets nothing more
    let _ = tokio::time::timeout(DEADLINE, connection).await;
}

fn answer(request: &Request<Incoming>, registry: &Registry) -> Response<Full<Bytes>> {
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "only /metrics is here\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let methods = HeaderValue::from_static("GET, HEAD");
        refusal.headers_mut().insert(ALLOW, methods);
        return refusal;
    }
    let mut text = String::new();
    if encode(&mut text, registry).is_err() {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return plain(status, "the metrics cannot be encoded\n");
    }
    response(StatusCode::OK, OPENMETRICS, text.into())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.into())
}

fn response(status: StatusCode, kind: &'static str, text: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
