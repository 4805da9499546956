//! What `wsproxy demo` puts behind and beside the gateway: an echo and chat
//! upstream, and the page that talks to it through the gateway.
//!
//! The demo knows nothing of the gateway: the page is bytes to answer a
//! request with ([`page`]), the upstream is a listener to route to
//! ([`serve_upstream`]), and which path carries a session is asked through a
//! function ([`PathOf`]) that the caller supplies.

mod chat;
mod page;
mod protocol;
mod reception;
mod session;
#[cfg(test)]
mod tests;
mod upstream;

pub use page::{PAGE, Page, page};
pub use session::MAX_MESSAGE_BYTES;
pub use upstream::{MAX_CONNECTIONS, serve_upstream};

use std::net::SocketAddr;
use std::sync::Arc;

/// The path the upstream accepts WebSocket connections on.
pub const WEBSOCKET_PATH: &str = "/ws";

/// What carries the bytes of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The kernel moves them from socket to socket.
    Kernel,
    /// The gateway copies them in user space.
    Relay,
    /// The kernel translates packet by packet.
    Packet,
}

impl Carrier {
    /// The name on the wire and on the page.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Kernel => "kernel",
            Carrier::Relay => "relay",
            Carrier::Packet => "packet",
        }
    }
}

/// Tells what carries the session whose upstream side has this peer address,
/// `None` where the gateway knows no such session.
///
/// Asked at every ping, on the runtime's threads: it must not block.
pub type PathOf = Arc<dyn Fn(SocketAddr) -> Option<Carrier> + Send + Sync>;
