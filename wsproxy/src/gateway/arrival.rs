//! What stands before HTTP: who may connect at all, a PROXY header, TLS.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ProtocolVersion, server::Acceptor};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{StartHandshake, TlsStream};

use super::{
    Client, Gateway,
    connection::say_goodbye,
    limited,
    listen::Accepted,
    setup::ListenerSetup,
    stream::{NOWHERE, Stream},
};
use crate::{
    forwarding::Connection,
    proxy_protocol::{self, Progress},
    tls,
};

/// Why nothing was read of a request: a label for a metric.
pub(super) struct Turned(pub(super) &'static str);

/// A connection whose next bytes are HTTP, and those that came already.
pub(super) struct Arrived {
    pub(super) stream: Stream,
    pub(super) client: Client,
    pub(super) received: Vec<u8>,
}

/// Takes a connection as far as its first request.
pub(super) async fn arrive(
    gateway: &Gateway,
    listener: Arc<ListenerSetup>,
    accepted: Accepted,
) -> Result<Arrived, Turned> {
    let patience = gateway.setup.load().config.timeouts.tls_handshake.get();
    let mut connection = Connection {
        peer: NOWHERE,
        local: NOWHERE,
        scheme: "http",
        tls_name: None,
        tls_version: None,
    };
    let mut stream = match accepted {
        Accepted::Unix(stream) => {
            let received = Vec::new();
            let client = Client { connection, listener };
            return Ok(Arrived { stream: Stream::Unix(stream), client, received });
        }
        Accepted::Tcp(stream, peer) => {
            connection.peer = canonical(peer);
            connection.local = stream.local_addr().map_or(NOWHERE, canonical);
            stream
        }
    };
    let mut received = Vec::new();
    let from = &listener.config.proxy_protocol_from;
    if from.iter().any(|network| network.contains(connection.peer.ip())) {
        let header = timeout(patience, proxy_header(&mut stream, &mut received)).await;
        let header = header.map_err(|_| Turned("proxy_header_timeout"))??;
        if let (Some(source), Some(destination)) = (header.source, header.destination) {
            (connection.peer, connection.local) = (canonical(source), canonical(destination));
        }
    }
    if !listener.config.access.admits(connection.peer.ip()) {
        return Err(Turned("address_refused"));
    }
    let Some(tls) = &listener.tls else {
        let client = Client { connection, listener };
        return Ok(Arrived { stream: Stream::Tcp(stream), client, received });
    };
    let config = tls.current();
    // On the heap: in the task it would make plain connections' larger too.
    let handshake = Box::pin(accept_tls(stream, received, config, patience)).await;
    let stream = handshake.inspect_err(|turned| {
        gateway.metrics.tls_handshakes.with_label_values(&[turned.0]).inc();
    })?;
    gateway.metrics.tls_handshakes.with_label_values(&["ok"]).inc();
    let session = stream.get_ref().1;
    connection.scheme = "https";
    connection.tls_name = session.server_name().map(Into::into);
    connection.tls_version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => Some("TLSv1.2"),
        Some(ProtocolVersion::TLSv1_3) => Some("TLSv1.3"),
        _ => None,
    };
    let stream = Stream::Tls(Box::new(TlsStream::Server(stream)));
    Ok(Arrived { stream, client: Client { connection, listener }, received: Vec::new() })
}

/// IPv4 as IPv4, whatever socket it came through.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn proxy_header(
    stream: &mut TcpStream,
    received: &mut Vec<u8>,
) -> Result<proxy_protocol::Header, Turned> {
    loop {
        match stream.read_buf(&mut limited(received)).await {
            Ok(0) => return Err(Turned("client_left")),
            Ok(_) => {}
            Err(_) => return Err(Turned("client_broke")),
        }
        match proxy_protocol::parse(received) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Done { value, consumed }) => {
                received.drain(..consumed);
                return Ok(value);
            }
            Err(error) => {
                tracing::debug!(%error, "a connection without a valid PROXY header");
                return Err(Turned("proxy_header"));
            }
        }
    }
}

/// Bytes of a connection that tell what it is instead of TLS.
const FIRST: usize = 16;

/// The client's hello is read first, so that something else than TLS gets a word. `received` was
/// read already.
async fn accept_tls(
    mut stream: TcpStream,
    received: Vec<u8>,
    config: Arc<rustls::ServerConfig>,
    patience: Duration,
) -> Result<tokio_rustls::server::TlsStream<TcpStream>, Turned> {
    let began = tokio::time::Instant::now();
    let hello = timeout(patience, hello(&mut stream, received)).await;
    let accepted = hello.map_err(|_| Turned("tls_timeout"))??;
    let left = patience.saturating_sub(began.elapsed());
    let handshake = StartHandshake::from_parts(accepted, stream).into_stream(config);
    match timeout(left, handshake.into_fallible()).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err((error, mut stream))) => {
            // The alert is out. With TLS 1.3 a request may be on its way already: a reset for it
            // would destroy the alert.
            say_goodbye(&mut stream, b"").await;
            Err(Turned(tls::explain(&error)))
        }
        Err(_) => Err(Turned("tls_timeout")),
    }
}

async fn hello(
    stream: &mut TcpStream,
    mut received: Vec<u8>,
) -> Result<rustls::server::Accepted, Turned> {
    let mut acceptor = Acceptor::default();
    let mut first = received.clone();
    loop {
        let mut unread = received.as_slice();
        while !unread.is_empty() {
            acceptor.read_tls(&mut unread).map_err(|_| Turned("not_tls"))?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut answer = Vec::new();
                let label = if let Some(text) = tls::plain_http_answer(&first) {
                    answer.extend_from_slice(text);
                    "not_tls"
                } else {
                    let _written = alert.write_all(&mut answer);
                    tls::explain_tls(&error)
                };
                say_goodbye(stream, &answer).await;
                return Err(Turned(label));
            }
        }
        received.clear();
        match stream.read_buf(&mut limited(&mut received)).await {
            Ok(0) => return Err(Turned("closed")),
            Ok(_) => {}
            Err(_) => return Err(Turned("client_broke")),
        }
        let missing = FIRST.saturating_sub(first.len());
        first.extend_from_slice(&received[..received.len().min(missing)]);
    }
}
