//! One WebSocket session of the upstream, from its first message to the end
//! of the close handshake.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tracing::debug;

use super::PathOf;
use super::chat::{Member, Room};
use super::protocol::{self, Command};
use super::reception::{Welcome, linger};

/// The longest message the upstream takes; a longer one closes the session
/// with 1009.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// For the peer to answer our Close frame, or to take our answer to its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Of each direction of a session; the default of 128 KiB is allocated up front.
const BUFFER_BYTES: usize = 4 * 1024;

/// What the sessions of an upstream share.
pub(super) struct House {
    pub(super) room: Room,
    pub(super) path_of: PathOf,
}

/// One session's peer, as this upstream sees it.
pub(super) struct Guest {
    pub(super) peer: SocketAddr,
    /// What the chat calls it.
    pub(super) id: String,
}

/// Why a session ends.
enum End {
    /// The peer sent a Close frame; our answer is queued.
    Answered,
    /// We close it, and say why.
    Close(CloseCode, &'static str),
    /// Nobody is there to say anything to.
    Gone,
}

/// How messages are limited. The write buffer never holds more than one
/// message and one pong, because a session flushes before it reads on.
pub(super) fn limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES))
}

/// Serves the session until either side closes it.
pub(super) async fn run(
    welcome: Welcome,
    guest: &Guest,
    house: &House,
    mut closing: watch::Receiver<bool>,
) {
    let Welcome { mut websocket, request } = welcome;
    let mut member = match request.uri().query() {
        Some("chat=off") => Member::deaf(),
        _ => house.room.join(),
    };
    let end = tokio::select! {
        end = talk(&mut websocket, guest, house, &mut member) => end,
        _ = closing.wait_for(|closing| *closing) => End::Close(CloseCode::Away, "demo stops"),
    };
    drop(member);
    let goodbye = async {
        match end {
            End::Answered => {}
            End::Close(code, reason) => {
                let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
                websocket.close(Some(frame)).await?;
            }
            End::Gone => return Ok(()),
        }
        // Reading on is what sends the answer and waits for the peer's.
        while let Some(message) = websocket.next().await {
            message?;
        }
        Ok(())
    };
    match timeout(CLOSE_TIMEOUT, goodbye).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log(guest, &error),
        Err(_) => debug!(peer = %guest.peer, "close handshake timed out"),
    }
    linger(websocket.into_inner()).await;
}

/// Answers messages and passes the chat on until the session has a reason to end.
async fn talk(
    websocket: &mut WebSocketStream<TcpStream>,
    guest: &Guest,
    house: &House,
    member: &mut Member,
) -> End {
    loop {
        let done = tokio::select! {
            incoming = websocket.next() => match incoming {
                None => return End::Gone,
                Some(Ok(Message::Close(_))) => return End::Answered,
                Some(Ok(message)) => match answer(message, guest, house) {
                    Some(reply) => websocket.send(reply).await,
                    // A pong may be queued: it goes out before more is read.
                    None => websocket.flush().await,
                },
                Some(Err(error)) => Err(error),
            },
            said = member.next() => websocket.send(Message::Text(said)).await,
        };
        if let Err(error) = done {
            log(guest, &error);
            return ending(&error);
        }
    }
}

/// What a message is answered with, if with anything.
fn answer(message: Message, guest: &Guest, house: &House) -> Option<Message> {
    let Message::Text(text) = message else {
        return message.is_binary().then_some(message);
    };
    let reply = match Command::parse(&text) {
        Some(Command::Ping { t }) => protocol::pong(t, (house.path_of)(guest.peer)),
        Some(Command::Echo { text }) => protocol::echo(&text),
        Some(Command::Chat { text }) => {
            house.room.say(protocol::chat(&guest.id, &text));
            return None;
        }
        None => text,
    };
    Some(Message::Text(reply))
}

/// How a session ends after this error (RFC 6455, 7.4.1).
fn ending(error: &Error) -> End {
    match error {
        Error::Capacity(_) => End::Close(CloseCode::Size, "message too big"),
        Error::Utf8(_) => End::Close(CloseCode::Invalid, "text is not UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        Error::Protocol(_) => End::Close(CloseCode::Protocol, "protocol error"),
        _ => End::Gone,
    }
}

fn log(guest: &Guest, error: &Error) {
    debug!(peer = %guest.peer, id = guest.id, %error, "session failed");
}
