//! Listening sockets, and the options every TCP connection of ours gets.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::fd::AsFd as _,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream},
    },
    path::Path,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::{
    config::{ListenOn, Listener, Timeouts},
    sys::repair,
};

/// Sockets that connections come in at, one for each worker: the kernel spreads connections over
/// TCP's (`SO_REUSEPORT`), a Unix socket is one that all accept from.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(Vec<StdTcpListener>),
    Unix(Vec<StdUnixListener>),
}

/// The socket of one worker.
#[derive(Debug)]
pub(super) enum Door {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A door before a worker has it.
#[derive(Debug)]
pub(super) enum NewDoor {
    Tcp(StdTcpListener),
    Unix(StdUnixListener),
}

impl NewDoor {
    /// In the reactor of the thread that calls it.
    ///
    /// # Errors
    /// What `epoll_ctl(2)` says.
    pub(super) fn open(self) -> io::Result<Door> {
        Ok(match self {
            Self::Tcp(socket) => Door::Tcp(TcpListener::from_std(socket)?),
            Self::Unix(socket) => Door::Unix(UnixListener::from_std(socket)?),
        })
    }
}

/// A connection that came in.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Door {
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address))
            }
            Self::Unix(listener) => Ok(Accepted::Unix(listener.accept().await?.0)),
        }
    }
}

impl Listening {
    /// The address, if it has one.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(sockets) => sockets.first()?.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// One for each worker.
    pub(super) fn doors(self) -> Vec<NewDoor> {
        match self {
            Self::Tcp(sockets) => sockets.into_iter().map(NewDoor::Tcp).collect(),
            Self::Unix(sockets) => sockets.into_iter().map(NewDoor::Unix).collect(),
        }
    }
}

/// Opens a listener of the configuration for so many workers. What it accepts has `options` from the start: a
/// connection inherits its listener's (`tcp_create_openreq_child`). `max_segment`: bytes of the
/// largest segment that is announced.
///
/// # Errors
/// The address is taken, not ours, or needs a privilege.
pub(super) fn open(
    listener: &Listener,
    options: TcpOptions,
    max_segment: Option<u16>,
    workers: usize,
) -> io::Result<Listening> {
    let address = match &listener.address {
        ListenOn::Tcp(address) => address,
        ListenOn::Unix(path) => {
            let socket = bind_unix(path)?;
            let clones = (0..workers).map(|_| socket.try_clone());
            return Ok(Listening::Unix(clones.collect::<io::Result<_>>()?));
        }
    };
    let (mut at, dual) = (address.socket_addr(), address.is_dual_stack());
    if !listener.reuseport && workers > 1 {
        // Our own sockets share the address with each other; with somebody else's they must not.
        drop(bound(at, dual, false)?);
    }
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers {
        let socket = bound(at, dual, listener.reuseport || workers > 1)?;
        options.apply(&socket)?;
        if let Some(most) = max_segment {
            repair::limit_mss(socket.as_fd(), most)?;
        }
        socket.listen(i32::try_from(listener.backlog.get()).unwrap_or(i32::MAX))?;
        let socket = StdTcpListener::from(socket);
        // Port 0 is any free one, the same for all.
        at = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Listening::Tcp(sockets))
}

/// Binds a Unix socket, in the place of one that nobody listens on any more.
///
/// # Errors
/// Somebody listens there, or something else than a socket is there.
pub(super) fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    let socket = match StdUnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let left_over = fs::symlink_metadata(path)?.file_type().is_socket()
                && StdUnixStream::connect(path)
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
            if !left_over {
                return Err(error);
            }
            fs::remove_file(path)?;
            StdUnixListener::bind(path)?
        }
        other => other?,
    };
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The same, for this user alone.
///
/// # Errors
/// As [`bind_unix`].
pub(super) fn bind_private(path: &Path) -> io::Result<StdUnixListener> {
    let listener = bind_unix(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Binds a listening, non-blocking TCP socket.
///
/// # Errors
/// What `socket(2)`, `bind(2)` or `listen(2)` say.
pub(super) fn bind(
    address: SocketAddr,
    dual_stack: bool,
    backlog: u32,
) -> io::Result<StdTcpListener> {
    let socket = bound(address, dual_stack, false)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, dual_stack: bool, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!dual_stack)?;
    }
    // A restart must not wait for the TIME_WAITs of the last run.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Keepalive probes before a connection is given up.
const KEEPALIVE_PROBES: u32 = 5;

/// What a connection gets, whichever side it is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpOptions {
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

    /// None of them, for connections that live no longer than a question.
    #[must_use]
    pub fn none() -> Self {
        Self { keepalive: None, user_timeout: None }
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
        let configured = Listener::at(address);
        let listener =
            open(&configured, TcpOptions::new(&Timeouts::default()), Some(1000), 1).unwrap();
        let _client = std::net::TcpStream::connect(listener.address().unwrap()).unwrap();
        let listener = listener.doors().remove(0).open().unwrap();
        let Accepted::Tcp(accepted, _) = listener.accept().await.unwrap() else { panic!() };
        let told = crate::sys::facts(accepted.as_fd()).unwrap();
        // Without its options.
        let options = if told.timestamps { 12 } else { 0 };
        assert_eq!(told.advmss + options, 1000);
        let accepted = SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        let defaults = Timeouts::default();
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), defaults.keepalive.unwrap().get());
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), KEEPALIVE_PROBES);
        let user_timeout = accepted.tcp_user_timeout().unwrap();
        assert_eq!(user_timeout, defaults.user_timeout.map(|t| t.get()));
    }

    #[tokio::test]
    async fn workers_share_an_address_with_each_other_only() {
        let options = TcpOptions::none();
        let configured = Listener::at("127.0.0.1:0".parse().unwrap());
        let listening = open(&configured, options, None, 3).unwrap();
        let address = listening.address().unwrap();
        let Listening::Tcp(sockets) = &listening else { panic!() };
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let mut taken = Listener::at(address.to_string().parse().unwrap());
        for workers in [1, 3] {
            let error = open(&taken, options, None, workers).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{workers}");
        }
        // That is what the key is for.
        taken.reuseport = true;
        assert!(open(&taken, options, None, 3).is_ok());
    }
}
