//! Listening sockets, and the options every TCP connection of ours gets.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::config::{Listener, Timeouts};

/// Opens the listener of the configuration. What it accepts has `options` from the start: a
/// connection inherits its listener's (`tcp_create_openreq_child`).
///
/// # Errors
/// The address is taken, not ours, or needs a privilege.
pub fn open(listener: &Listener, options: TcpOptions) -> io::Result<TcpListener> {
    let address = listener.address.socket_addr();
    let listener = bind(address, listener.address.is_dual_stack(), listener.backlog.get())?;
    options.apply(&listener)?;
    Ok(listener)
}

/// Binds a listening, non-blocking TCP socket.
///
/// # Errors
/// What `socket(2)`, `bind(2)` or `listen(2)` say.
pub fn bind(address: SocketAddr, dual_stack: bool, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // A restart must not wait for the TIME_WAITs of the last run.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Keepalive probes before a connection is given up.
const KEEPALIVE_PROBES: u32 = 5;

/// What a connection gets, whichever side it is on.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    keepalive: Option<Duration>,
    user_timeout: Option<Duration>,
}

impl TcpOptions {
    /// From the configuration.
    #[must_use]
    pub fn new(timeouts: &Timeouts) -> Self {
        Self {
            keepalive: timeouts.keepalive.map(|k| k.get()),
            user_timeout: timeouts.user_timeout.map(|t| t.get()),
        }
    }

    /// Sets them.
    ///
    /// # Errors
    /// What `setsockopt(2)` says; a connection that is gone already, mostly.
    pub fn apply<S: std::os::fd::AsFd>(&self, stream: &S) -> io::Result<()> {
        let socket = SockRef::from(stream);
        // A message must not wait for the acknowledgement of the last one.
        socket.set_tcp_nodelay(true)?;
        if let Some(idle) = self.keepalive {
            let interval = (idle / KEEPALIVE_PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new()
                .with_time(idle)
                .with_interval(interval)
                .with_retries(KEEPALIVE_PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        socket.set_tcp_user_timeout(self.user_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ListenAddr, Timeouts};

    #[tokio::test]
    async fn accepted_connections_inherit_the_options() {
        let address: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let configured = Listener { address, ..Listener::default() };
        let listener = open(&configured, TcpOptions::new(&Timeouts::default())).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        let defaults = Timeouts::default();
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), defaults.keepalive.unwrap().get());
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        let user_timeout = accepted.tcp_user_timeout().unwrap();
        assert_eq!(user_timeout, defaults.user_timeout.map(|t| t.get()));
    }
}
