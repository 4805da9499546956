//! The upstream's listener: how many may come in, and how all leave.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::PathOf;
use super::chat::Room;
use super::reception;
use super::session::{self, Guest, House};

/// Connections served at once; one more is refused with 503.
pub const MAX_CONNECTIONS: usize = 1024;

/// Connections being refused at once; one more is dropped unanswered.
const MAX_REFUSALS: usize = 64;

/// After an `accept` that failed, as with no descriptor left: trying again at
/// once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For all sessions to close once the upstream stops. Above what one session
/// may take, its close handshake of 2 s and its linger of 1 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// Serves the echo and chat upstream until `stop` is ready, then closes every
/// session with 1001 and returns when they are gone, at the latest after 4 s.
///
/// A WebSocket at `/ws` speaks JSON texts: `ping` is answered by a `pong` that
/// names the path, `chat` is said to all, `echo` is answered alike. Any other
/// message comes back as it is, so that every WebSocket client finds an echo
/// server. `/ws?chat=off` stays out of the chat and hears only its own echo.
pub async fn serve_upstream(listener: TcpListener, path_of: PathOf, stop: impl Future) {
    serve(listener, path_of, stop, MAX_CONNECTIONS).await;
}

pub(super) async fn serve(
    listener: TcpListener,
    path_of: PathOf,
    stop: impl Future,
    max_connections: usize,
) {
    let house = Arc::new(House { room: Room::new(), path_of });
    let places = Arc::new(Semaphore::new(max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let closing = watch::Sender::new(false);
    let mut guests = JoinSet::new();
    let mut arrivals: u64 = 0;
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => break,
            Some(_) = guests.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (permit, full) = match places.clone().try_acquire_owned() {
            Ok(place) => (place, false),
            Err(_) => match refusals.clone().try_acquire_owned() {
                Ok(refusal) => (refusal, true),
                Err(_) => continue,
            },
        };
        arrivals += 1;
        let guest = Guest { peer, id: format!("{arrivals:04x}") };
        let (house, closing) = (house.clone(), closing.subscribe());
        guests.spawn(async move {
            welcome(stream, guest, &house, closing, full).await;
            drop(permit);
        });
    }
    drop(listener);
    closing.send_replace(true);
    let gone = async { while guests.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, gone).await.is_err() {
        debug!(left = guests.len(), "sessions cut off");
    }
}

/// From the first byte of a connection to its last.
async fn welcome(
    stream: TcpStream,
    guest: Guest,
    house: &House,
    mut closing: watch::Receiver<bool>,
    full: bool,
) {
    // Small messages both ways: waiting to fill segments only adds delay.
    let received = match stream.set_nodelay(true) {
        Ok(()) => tokio::select! {
            received = reception::receive(stream, session::limits(), full) => received,
            _ = closing.wait_for(|closing| *closing) => return,
        },
        Err(error) => Err(error),
    };
    match received {
        Ok(Some(welcome)) => session::run(welcome, &guest, house, closing).await,
        Ok(None) => debug!(peer = %guest.peer, "refused"),
        Err(error) => debug!(peer = %guest.peer, %error, "no handshake"),
    }
}
