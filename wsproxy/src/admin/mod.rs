//! The admin address: `/metrics`, `/healthz`, `/readyz`. The admin socket: these, and what an
//! operator may ask and tell (`api`).

mod api;
pub mod client;
pub(crate) mod line;

use std::{convert::Infallible, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
};

use crate::{
    gateway::Control,
    metrics::{self, Metrics},
};

/// Connections that may wait for an accept.
pub const BACKLOG: u32 = 64;
/// Connections at the same time; further ones wait in the backlog.
const CONNECTIONS: usize = 32;
/// A connection that sends no request is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection lives no longer than this, so that idle ones can't block the others for ever.
const LIFETIME: Duration = Duration::from_secs(300);

/// What the admin address shows.
#[derive(Clone, Debug)]
pub struct State {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// True while the gateway drains.
    pub stopping: watch::Receiver<bool>,
}

/// Serves `/metrics`, `/healthz` and `/readyz` until it is dropped.
pub async fn serve(listener: TcpListener, state: State) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let state = state.clone();
                tokio::spawn(async move {
                    let ask = move |request: Request<Incoming>| {
                        let answer = answer(&state, request.method(), request.uri().path());
                        async move { answer }
                    };
                    connection(stream, ask).await;
                    drop(place);
                });
            }
            Err(error) => pause("address", &error).await,
        }
    }
}

/// Serves the same and the operator's questions and orders until it is dropped.
pub async fn serve_operator(listener: UnixListener, state: State, control: Control) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (state, control) = (state.clone(), control.clone());
                tokio::spawn(async move {
                    let ask = move |request: Request<Incoming>| {
                        let (state, control) = (state.clone(), control.clone());
                        async move {
                            match api::answer(&control, &request).await {
                                Some(answer) => answer,
                                None => answer(&state, request.method(), request.uri().path()),
                            }
                        }
                    };
                    connection(stream, ask).await;
                    drop(place);
                });
            }
            Err(error) => pause("socket", &error).await,
        }
    }
}

async fn pause(what: &str, error: &std::io::Error) {
    tracing::warn!(%error, "accept on the admin {what} failed; pausing");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn connection<S, A, F>(stream: S, ask: A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = ask(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(LIFETIME, connection).await {
        tracing::debug!(%error, "admin connection");
    }
}

fn answer(state: &State, method: &Method, path: &str) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = if !matches!(*method, Method::GET | Method::HEAD) {
        (StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n".into())
    } else {
        match path {
            "/metrics" => match state.metrics.text() {
                Ok(text) => (StatusCode::OK, metrics::CONTENT_TYPE, text),
                Err(error) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n").into_bytes())
                }
            },
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" if *state.stopping.borrow() => {
                (StatusCode::SERVICE_UNAVAILABLE, TEXT, "stopping\n".into())
            }
            "/readyz" => (StatusCode::OK, TEXT, "ready\n".into()),
            _ => {
                let known = "not here; there are /metrics, /healthz and /readyz\n";
                (StatusCode::NOT_FOUND, TEXT, known.into())
            }
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_answer() {
        let (stop, stopping) = watch::channel(false);
        let state = State { metrics: Arc::new(Metrics::new().unwrap()), stopping };
        let check = |method: Method, path: &str, status: u16| {
            assert_eq!(answer(&state, &method, path).status(), status, "{method} {path}");
        };
        check(Method::GET, "/metrics", 200);
        check(Method::GET, "/healthz", 200);
        check(Method::GET, "/readyz", 200);
        check(Method::GET, "/", 404);
        check(Method::POST, "/metrics", 405);
        stop.send(true).unwrap();
        check(Method::GET, "/readyz", 503);
        check(Method::GET, "/healthz", 200);
    }
}
