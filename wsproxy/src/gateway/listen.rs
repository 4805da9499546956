//! Listening sockets, and the options every TCP connection of ours gets.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

use crate::config::{Listener, Timeouts};

/// Opens the listener of the configuration.
///
/// # Errors
/// The address is taken, not ours, or needs a privilege.
pub fn open(listener: &Listener) -> io::Result<TcpListener> {
    let address = listener.address.socket_addr();
    bind(address, listener.address.is_dual_stack(), listener.backlog.get())
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
