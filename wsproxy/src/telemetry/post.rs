//! The way to the collector: one HTTP request over a connection of its own for each batch.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::{Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
    time::timeout,
};

use super::{shown, variable};
use crate::tls::Outbound;

/// How long a batch may take, unless the environment says else (OTLP's default).
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer of a collector that is read, in bytes; a good one has next to none.
const ANSWER_MAX: usize = 64 * 1024;

/// Posts batches from whichever thread, on a runtime of ours.
#[derive(Debug)]
pub(super) struct Post {
    runtime: runtime::Handle,
    patience: Duration,
    /// Where the collector's URL wants it.
    tls: Option<Outbound>,
    /// The last batch failed, and that was said.
    failing: AtomicBool,
}

impl Post {
    /// Of batches for `collector`, a URL.
    ///
    /// # Errors
    /// What is wrong with the CAs that it takes.
    pub(super) fn new(runtime: &runtime::Handle, collector: &str) -> io::Result<Self> {
        let ca = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
        let ca = || ca.iter().find_map(|name| variable(name)).map(Into::into);
        let tls = collector.starts_with("https:").then(|| Outbound::load(ca())).transpose()?;
        let names = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        let millis = names.iter().find_map(|name| variable(name)?.parse().ok());
        Ok(Self {
            runtime: runtime.clone(),
            patience: millis.map_or(PATIENCE, Duration::from_millis),
            tls,
            failing: AtomicBool::new(false),
        })
    }
}

/// As the macro of the trait's own crate would write it.
type Answer<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for Post {
    fn send_bytes<'s, 'a>(&'s self, request: Request<Bytes>) -> Answer<'a>
    where
        's: 'a,
        Self: 'a,
    {
        let (patience, tls) = (self.patience, self.tls.clone());
        let collector = shown(&request.uri().to_string());
        // The SDK's thread that waits for this has no reactor of its own.
        let task = self.runtime.spawn(async move {
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            timeout(patience, post(request, tls)).await.map_err(late)?
        });
        Box::pin(async move {
            let answer = task.await.unwrap_or_else(|gone| Err(io::Error::other(gone)));
            self.note(&collector, &answer);
            Ok(answer?)
        })
    }
}

impl Post {
    /// Says once that a collector fails, and once that it is back.
    fn note(&self, collector: &str, answer: &io::Result<Response<Bytes>>) {
        let error = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        match error {
            Some(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        collector,
                        error,
                        "spans can't be exported and are lost until this is said to be over"
                    );
                }
            }
            None => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(collector, "spans are exported again");
                }
            }
        }
    }
}

async fn post(request: Request<Bytes>, tls: Option<Outbound>) -> io::Result<Response<Bytes>> {
    let uri = request.uri().clone();
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    let host = uri.host().ok_or_else(|| bad("the collector's URL has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = |default| uri.port_u16().unwrap_or(default);
    match (uri.scheme_str(), tls) {
        (Some("http"), _) => {
            let stream = TcpStream::connect((host, port(80))).await?;
            exchange(stream, request, &uri).await
        }
        (Some("https"), Some(tls)) => {
            let stream = TcpStream::connect((host, port(443))).await?;
            exchange(tls.connect(host, stream).await?, request, &uri).await
        }
        _ => Err(bad("the collector's URL must begin with http:// or https://")),
    }
}

/// One request and its answer (RFC 9112 section 9.6: no other one follows).
async fn exchange<S>(stream: S, request: Request<Bytes>, uri: &Uri) -> io::Result<Response<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let (mut head, body) = request.into_parts();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // What stands before an `@` is no part of `Host` (RFC 9110 section 7.2).
    let host = authority.rsplit('@').next().unwrap_or_default();
    head.headers.insert(header::HOST, host.parse().map_err(io::Error::other)?);
    head.headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(io::Error::other)?;
    let answer = async {
        let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await;
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, ANSWER_MAX).collect().await.map_err(io::Error::other)?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The answer comes while the connection is driven, and the end of that is no error of ours.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! { answer = answer => answer, never = driven => never }
}
