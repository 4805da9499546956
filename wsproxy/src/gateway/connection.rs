//! The story of a connection, from accept to the moment the datapath has it:
//!
//! 1. read the client's request head, and refuse what is no valid upgrade;
//! 2. connect to an upstream server, the next one where that fails;
//! 3. send it the request, rebuilt, and read its answer;
//! 4. a valid 101: pass it on, and hand both sockets to the datapath, with the
//!    bytes that came too early; the story goes on in `datapath::session`;
//! 5. any other answer: pass it on as it is, and start over where HTTP allows.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Gateway, demo_page,
    upstream::{Connected, Unreachable},
};
use crate::{
    datapath::{ClientSocket, Handover, Reservation, SessionMeta, UpstreamSocket},
    handshake::{
        Answer, BodyTracker, Forwarded, OtherAnswer, Progress, Refusal, RefusalReason, Switched,
        UpgradeRequest, build_request, parse_request, parse_response,
    },
};

/// Bytes of one read during a handshake; also the most early bytes in hand.
const READ: usize = 8 * 1024;
/// Bytes of one read while an ordinary answer is passed on.
const BODY_READ: usize = 32 * 1024;
/// After a refusal: how long and how much we listen on, so that the refusal is
/// not destroyed by a reset for bytes that nobody read (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 * 1024;

/// Why the story ended without a tunnel.
enum End {
    /// The client is to be told.
    Refused(Refusal),
    /// There is nobody to tell, or nothing to say: a label for the metric.
    Silent(&'static str),
    /// The client asked for nothing that failed: it closed between requests,
    /// or got an ordinary answer and a close.
    Done,
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Tells the story for one accepted connection; `place` is reserved for its session.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    mut client: TcpStream,
    address: SocketAddr,
    place: Reservation,
) {
    match negotiate(&gateway, &mut client, address).await {
        Ok(tunnel) => hand_over(&gateway, client, address, place, tunnel),
        Err(End::Done) => {}
        Err(End::Silent(reason)) => {
            gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
            tracing::debug!(client = %address, reason, "handshake failed");
        }
        Err(End::Refused(refusal)) => {
            // The place is free again while the client reads why.
            drop(place);
            refuse(&gateway, client, address, &refusal).await;
        }
    }
}

/// Sends a refusal and closes so that it arrives.
pub(super) async fn refuse(
    gateway: &Gateway,
    mut client: TcpStream,
    address: SocketAddr,
    refusal: &Refusal,
) {
    let reason = refusal.reason.label();
    gateway.metrics.handshake_failures.with_label_values(&[reason]).inc();
    tracing::debug!(
        client = %address, status = refusal.status, reason, detail = %refusal.detail,
        "handshake refused"
    );
    say_goodbye(&mut client, &refusal.to_bytes()).await;
}

async fn say_goodbye(client: &mut TcpStream, last_words: &[u8]) {
    let goodbye = async {
        client.write_all(last_words).await?;
        client.shutdown().await?;
        // On the heap: in the task it would make every connection's that much larger.
        let mut rest = vec![0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            let n = client.read(&mut rest).await?;
            if n == 0 {
                break;
            }
            left = left.saturating_sub(n);
        }
        io::Result::Ok(())
    };
    // A client that is gone or too slow gets no more of our time.
    let _gone_or_slow = timeout(LINGER, goodbye).await;
}

/// A handshake that succeeded on both sides; the client has its 101.
struct Tunnel {
    upstream: Connected,
    early_to_upstream: Vec<u8>,
    early_to_client: Vec<u8>,
}

async fn negotiate(
    gateway: &Gateway,
    client: &mut TcpStream,
    address: SocketAddr,
) -> Result<Tunnel, End> {
    let mut received = Vec::with_capacity(1024);
    let mut first = true;
    loop {
        let (request, began) = read_request(gateway, client, &mut received, first).await?;
        first = false;
        let mut upstream = connect(gateway, address).await?;
        let (answer, early_to_client) =
            ask(gateway, &mut upstream.stream, &request, address).await?;
        match answer {
            Answer::Switched(switched) => {
                pass_on_101(gateway, client, &switched).await?;
                gateway.metrics.handshake_seconds.observe(began.elapsed().as_secs_f64());
                return Ok(Tunnel { upstream, early_to_upstream: received, early_to_client });
            }
            Answer::Other(other) => {
                let label = "upstream_refused";
                gateway.metrics.handshake_failures.with_label_values(&[label]).inc();
                tracing::debug!(client = %address, upstream = %upstream.name,
                    status = other.status, "the upstream refused the upgrade");
                // Bytes behind the request were meant for a tunnel that did not open: they must
                // not be read as the next request.
                let stays = request.keep_alive && received.is_empty();
                pass_on(gateway, client, upstream.stream, &other, early_to_client, stays).await?;
            }
        }
    }
}

/// Reads a request head; what follows it stays in `received`.
async fn read_request(
    gateway: &Gateway,
    client: &mut TcpStream,
    received: &mut Vec<u8>,
    first: bool,
) -> Result<(UpgradeRequest, Instant), End> {
    let patience = gateway.config.timeouts.request_head.get();
    let deadline = Instant::now() + patience;
    let mut began = None;
    loop {
        if !received.is_empty() {
            began.get_or_insert_with(Instant::now);
            match parse_request(received, &gateway.head_limits) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Done { value, consumed }) => {
                    received.drain(..consumed);
                    return Ok((value, began.unwrap_or(deadline)));
                }
                Err(refusal) => return Err(page_or(gateway, client, received, refusal).await),
            }
        }
        let mut room = limited(received);
        let read = tokio::time::timeout_at(deadline, client.read_buf(&mut room));
        let read = tokio::select! {
            read = read => read,
            // Not a word about it to a client that has asked for nothing yet.
            () = gateway.until_stopped() => return Err(End::Silent("stopping")),
        };
        match read {
            // Nothing asked, nothing failed: a health check, or the end of keep-alive.
            Ok(Ok(0)) if received.is_empty() => return Err(End::Done),
            Ok(Ok(0)) => return Err(End::Silent("client_left")),
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(End::Silent("client_broke")),
            Err(_) if received.is_empty() && !first => return Err(End::Done),
            Err(_) => return Err(Refusal::timeout().into()),
        }
    }
}

/// At most [`READ`] more bytes into `buffer`, whatever its spare capacity.
fn limited(buffer: &mut Vec<u8>) -> bytes::buf::Limit<&mut Vec<u8>> {
    use bytes::BufMut as _;
    buffer.limit(READ)
}

/// With the demo: a page for who asks for one. Else the refusal.
async fn page_or(
    gateway: &Gateway,
    client: &mut TcpStream,
    received: &[u8],
    refusal: Refusal,
) -> End {
    if gateway.demo
        && refusal.reason == RefusalReason::NotWebSocket
        && let Some(page) = demo_page(received)
    {
        say_goodbye(client, &page).await;
        return End::Done;
    }
    End::Refused(refusal)
}

async fn connect(gateway: &Gateway, client: SocketAddr) -> Result<Connected, End> {
    let patience = gateway.config.timeouts.upstream_connect.get();
    let failed = |name: &str| gateway.metrics.upstream_failures.with_label_values(&[name]).inc();
    let connected = gateway.upstreams.connect(patience, gateway.tcp, failed).await;
    connected.map_err(|unreachable: Unreachable| {
        tracing::warn!(%client, error = %unreachable, "no upstream");
        let all_slow =
            unreachable.attempts.iter().all(|(_, e)| e.kind() == io::ErrorKind::TimedOut);
        // Which server it was is the operator's business, not the client's.
        if all_slow {
            Refusal::gateway_timeout().into()
        } else {
            Refusal::bad_gateway("No upstream server could be reached.").into()
        }
    })
}

/// Sends the request and reads the head of the answer, with what follows it.
async fn ask(
    gateway: &Gateway,
    upstream: &mut TcpStream,
    request: &UpgradeRequest,
    client: SocketAddr,
) -> Result<(Answer, Vec<u8>), End> {
    let forwarded = Forwarded { client_ip: client.ip().to_canonical(), proto: "http" };
    let head = build_request(request, &forwarded);
    let exchange = async {
        let broke = |e: io::Error| {
            tracing::warn!(%client, error = %e, "the upstream broke off the handshake");
            End::from(Refusal::bad_gateway("The upstream server broke off the handshake."))
        };
        upstream.write_all(&head).await.map_err(broke)?;
        let mut received = Vec::with_capacity(1024);
        loop {
            if upstream.read_buf(&mut limited(&mut received)).await.map_err(broke)? == 0 {
                return Err(broke(io::ErrorKind::UnexpectedEof.into()));
            }
            match parse_response(&received, request, &gateway.head_limits) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Done { value, consumed }) => {
                    received.drain(..consumed);
                    return Ok((value, received));
                }
                Err(bad) => {
                    tracing::warn!(%client, error = %bad, "the upstream's answer is invalid");
                    return Err(bad.refusal().into());
                }
            }
        }
    };
    in_time(gateway, exchange).await?
}

/// Waits as long as an upstream may take to answer.
async fn in_time<T>(gateway: &Gateway, what: impl Future<Output = T>) -> Result<T, End> {
    timeout(gateway.config.timeouts.upstream_answer.get(), what)
        .await
        .map_err(|_| Refusal::gateway_timeout().into())
}

async fn pass_on_101(
    gateway: &Gateway,
    client: &mut TcpStream,
    switched: &Switched,
) -> Result<(), End> {
    let written = in_time(gateway, client.write_all(&switched.to_bytes())).await;
    match written {
        Ok(Ok(())) => Ok(()),
        // It may have had half of the 101: no refusal can follow.
        Ok(Err(_)) | Err(_) => Err(End::Silent("client_broke")),
    }
}

/// Passes on an answer that is no 101, its body included. `Ok`: the client may
/// ask again.
async fn pass_on(
    gateway: &Gateway,
    client: &mut TcpStream,
    mut upstream: TcpStream,
    answer: &OtherAnswer,
    mut body: Vec<u8>,
    stays: bool,
) -> Result<(), End> {
    let stays = stays && !answer.closes();
    let cut = |_| End::Silent("answer_cut_short");
    let mut tracker = BodyTracker::new(answer.framing);
    // From here on the client has bytes of an answer: what fails now ends in a close.
    let head = in_time(gateway, client.write_all(&answer.to_bytes(stays))).await;
    head.map_err(|_| End::Silent("client_slow"))?.map_err(cut)?;
    loop {
        let progress = tracker.feed(&body).map_err(|_| End::Silent("upstream_body_invalid"))?;
        let sent = in_time(gateway, client.write_all(&body[..progress.used])).await;
        sent.map_err(|_| End::Silent("client_slow"))?.map_err(cut)?;
        if progress.complete {
            break;
        }
        body.clear();
        body.reserve(BODY_READ);
        let read = in_time(gateway, upstream.read_buf(&mut body)).await;
        if read.map_err(|_| End::Silent("upstream_slow"))?.map_err(cut)? == 0 {
            if answer.closes() {
                break;
            }
            return Err(End::Silent("answer_cut_short"));
        }
    }
    if stays {
        return Ok(());
    }
    say_goodbye(client, b"").await;
    Err(End::Done)
}

fn hand_over(
    gateway: &Gateway,
    client: TcpStream,
    address: SocketAddr,
    place: Reservation,
    tunnel: Tunnel,
) {
    let id = gateway.next_id();
    let Connected { stream, local, name } = tunnel.upstream;
    // Out of tokio's reactor; both stay non-blocking.
    let (client, upstream) = match (client.into_std(), stream.into_std()) {
        (Ok(client), Ok(upstream)) => (client, upstream),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(client = %address, %error, "a socket can't leave the reactor");
            return;
        }
    };
    let meta = SessionMeta {
        id,
        client: address,
        local,
        upstream: name,
        route: Arc::clone(&gateway.route),
    };
    let handover = Handover {
        client: ClientSocket(client.into()),
        upstream: UpstreamSocket(upstream.into()),
        early_to_upstream: tunnel.early_to_upstream,
        early_to_client: tunnel.early_to_client,
        meta,
    };
    gateway.datapath.take_over(place, handover);
}
