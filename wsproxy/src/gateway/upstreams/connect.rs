//! A connection to one server.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
};

use rustls::{ClientConfig, pki_types::ServerName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::{TlsConnector, TlsStream};

use crate::{
    balance::ServerId,
    config::{self, Diagnostic, Place, Problems, ProxyVersion},
    forwarding::Connection,
    gateway::{listen::TcpOptions, stream::Stream},
    proxy_protocol,
    sys::{self, repair},
    tls::{CertificateFiles, ClientFiles, SystemRoots, load_client},
};

/// A server that can be connected to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: ServerId,
    /// As logs, metrics and consistent hashing know it.
    pub(crate) name: Arc<str>,
    pub(super) place: TargetPlace,
    /// The name in its certificate, where it speaks TLS.
    pub(super) tls: Option<ServerName<'static>>,
    /// `Host` for who wants the server's own.
    pub(crate) host: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetPlace {
    /// One address, or several of the same machine.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// What a connection is made for.
#[derive(Clone, Copy)]
pub(crate) struct Via<'a> {
    /// The options of every connection.
    pub(crate) tcp: TcpOptions,
    /// The client's connection; none for our own questions.
    pub(crate) client: Option<&'a Connection>,
    /// Bytes of the largest segment that the server is told to send; none: what the way takes.
    pub(crate) max_segment: Option<u16>,
}

/// Connects, with everything that stands before HTTP.
pub(super) async fn connect(
    target: &Target,
    config: &config::Upstream,
    tls: Option<&Arc<ClientConfig>>,
    via: &Via<'_>,
) -> io::Result<Stream> {
    let mut stream = match &target.place {
        TargetPlace::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        TargetPlace::Tcp(addresses) => {
            let max_segment = via.max_segment.filter(|_| target.tls.is_none());
            Stream::Tcp(tcp(addresses, config, &Via { max_segment, ..*via }).await?)
        }
    };
    if let Some(version) = config.proxy_protocol {
        stream.write_all(&proxy_header(version, via.client)).await?;
    }
    match (&target.tls, tls, stream) {
        (Some(name), Some(tls), Stream::Tcp(socket)) => {
            let connector = TlsConnector::from(Arc::clone(tls));
            let stream = Box::pin(connector.connect(name.clone(), socket)).await?;
            Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
        }
        (_, _, stream) => Ok(stream),
    }
}

/// Why a connection failed that no server was asked for: none is to suffer for it.
#[derive(Debug, thiserror::Error)]
enum NotAsked {
    #[error(
        "upstream.transparent: the client has the address {client} and the server {server}, \
         of another family"
    )]
    Families { client: IpAddr, server: IpAddr },
    #[error("upstream.transparent needs CAP_NET_ADMIN or CAP_NET_RAW: {0}")]
    Privilege(io::Error),
    #[error("upstream.transparent: can't connect from {client}: {cause}")]
    Source { client: IpAddr, cause: io::Error },
}

impl From<NotAsked> for io::Error {
    fn from(error: NotAsked) -> Self {
        Self::other(error)
    }
}

/// Whether a connection that failed with this says something about the server.
pub(in crate::gateway) fn was_asked(error: &io::Error) -> bool {
    !error.get_ref().is_some_and(|inner| inner.is::<NotAsked>())
}

async fn tcp(
    addresses: &[SocketAddr],
    config: &config::Upstream,
    via: &Via<'_>,
) -> io::Result<TcpStream> {
    // A client behind a Unix socket has no address to connect from.
    let client = via.client.map(|client| client.peer.ip().to_canonical());
    let client = client.filter(|ip| config.transparent && !ip.is_unspecified());
    let mut last = None;
    for address in addresses {
        let attempt = match client {
            Some(client) => from_address(client, *address, via.max_segment).await,
            None => anywhere_from(*address, via.max_segment).await,
        };
        match attempt {
            Ok(stream) => {
                via.tcp.apply(&stream)?;
                return Ok(stream);
            }
            // What a server of several addresses said counts, not which of them nobody asked.
            Err(error) if was_asked(&error) || !last.as_ref().is_some_and(was_asked) => {
                last = Some(error);
            }
            Err(_) => {}
        }
    }
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    Err(last.unwrap_or_else(none))
}

async fn anywhere_from(server: SocketAddr, max_segment: Option<u16>) -> io::Result<TcpStream> {
    let Some(most) = max_segment else { return TcpStream::connect(server).await };
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    announcing(socket, server, most).await
}

/// Connects, and has the server send segments of `most` bytes at most.
async fn announcing(socket: Socket, server: SocketAddr, most: u16) -> io::Result<TcpStream> {
    repair::limit_mss(socket.as_fd(), most)?;
    match socket.connect(&server.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // The SYN has said it. What the server says in its answer is not to be cut to the same number
    // (`tcp_parse_options`): it tells how large the client's segments may be.
    repair::lift_mss_limit(socket.as_fd())?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Connects from the client's own address. The answers come back to us only where routing sends
/// them here.
async fn from_address(
    client: IpAddr,
    server: SocketAddr,
    max_segment: Option<u16>,
) -> io::Result<TcpStream> {
    if client.is_ipv4() != server.is_ipv4() {
        return Err(NotAsked::Families { client, server: server.ip() }.into());
    }
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let transparent = if server.is_ipv4() {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_ip_transparent_v6(true)
    };
    transparent.map_err(NotAsked::Privilege)?;
    // The port is chosen by `connect`: it must differ only from those that the client's other
    // connections to this very server have, not from those to all servers.
    sys::bind_without_port(socket.as_fd())?;
    let bound = socket.bind(&SocketAddr::new(client, 0).into());
    bound.map_err(|cause| NotAsked::Source { client, cause })?;
    let connected = match max_segment {
        Some(most) => announcing(socket, server, most).await,
        None => TcpSocket::from_std_stream(socket.into()).connect(server).await,
    };
    connected.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrNotAvailable => NotAsked::Source { client, cause }.into(),
        _ => cause,
    })
}

fn proxy_header(version: ProxyVersion, client: Option<&Connection>) -> Vec<u8> {
    let known = client.filter(|client| client.peer.port() != 0);
    let (source, destination) = (known.map(|c| c.peer), known.map(|c| c.local));
    match version {
        ProxyVersion::V1 => proxy_protocol::write_v1(source, destination),
        ProxyVersion::V2 => proxy_protocol::write_v2(source, destination),
    }
}

/// How this group's servers are spoken to over TLS.
pub(super) fn tls_config(
    config: &config::Upstream,
    system: &SystemRoots,
) -> Result<Arc<ClientConfig>, Problems> {
    let tls = &config.tls;
    let files = ClientFiles {
        ca: tls.ca.as_ref().map(|given| given.value.clone()),
        verify: tls.verify,
        certificate: tls.certificate.as_ref().map(|pair| CertificateFiles {
            certificate: pair.certificate.value.clone(),
            key: pair.key.value.clone(),
        }),
    };
    let loaded = load_client(&files, system).map_err(|found| {
        let place = |path: &PathBuf| {
            let pair = tls.certificate.as_ref();
            let given =
                [tls.ca.as_ref(), pair.map(|pair| &pair.certificate), pair.map(|pair| &pair.key)];
            given.into_iter().flatten().find(|given| given.value == *path)
        };
        let say = |problem: crate::tls::FileProblem| match place(&problem.path) {
            Some(given) => given.remark(format!("{}: {}", problem.path.display(), problem.message)),
            None => Diagnostic::new(Place::CommandLine, problem.message)
                .with_key(format!("upstream \"{}\"", config.name)),
        };
        let list: Vec<_> = found.problems.into_iter().map(say).collect();
        Problems::of(list).unwrap_or_else(|| problem(config, "its TLS can't be set up"))
    })?;
    for warning in &loaded.warnings {
        tracing::warn!(upstream = config.name, "{warning}");
    }
    Ok(loaded.config)
}

/// One thing that is wrong with a group.
pub(super) fn problem(config: &config::Upstream, message: &str) -> Problems {
    let key = format!("upstream \"{}\"", config.name);
    let problem = Diagnostic::new(Place::CommandLine, message.to_owned()).with_key(key);
    Problems::single(problem)
}
