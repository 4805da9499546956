//! Which upstream server a session goes to, and the connection to it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout};

use super::listen::TcpOptions;
use crate::config::{Host, UpstreamAddr};

/// The servers of the configuration, taken in turn.
#[derive(Debug)]
pub struct Upstreams {
    servers: Vec<(UpstreamAddr, Arc<str>)>,
    next: AtomicUsize,
}

/// A connection to one of them.
#[derive(Debug)]
pub struct Connected {
    /// The connection.
    pub stream: TcpStream,
    /// Our address on it.
    pub local: SocketAddr,
    /// The server, as configured.
    pub name: Arc<str>,
}

/// No server could be reached.
#[derive(Debug)]
pub struct Unreachable {
    /// What each said, in the order tried.
    pub attempts: Vec<(Arc<str>, io::Error)>,
}

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no upstream server could be reached")?;
        for (name, error) in &self.attempts {
            write!(f, "; {name}: {error}")?;
        }
        Ok(())
    }
}

/// The order in which to try `count` servers when it is the turn of `first`.
fn turn(first: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |step| first.wrapping_add(step) % count.max(1))
}

impl Upstreams {
    /// From a list that is not empty.
    #[must_use]
    pub fn new(servers: Vec<UpstreamAddr>) -> Self {
        let named = servers.into_iter().map(|s| {
            let name = s.to_string().into();
            (s, name)
        });
        Self { servers: named.collect(), next: AtomicUsize::new(0) }
    }

    /// Connects to the server whose turn it is, or to the next ones where that
    /// fails; each attempt may take `patience`. `failed` hears of each failure.
    ///
    /// # Errors
    /// All servers failed.
    pub async fn connect(
        &self,
        patience: Duration,
        options: TcpOptions,
        failed: impl Fn(&str),
    ) -> Result<Connected, Unreachable> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut attempts = Vec::new();
        for at in turn(first, self.servers.len()) {
            let (address, name) = &self.servers[at];
            let attempt = timeout(patience, connect(address)).await;
            let attempt = attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            let prepared = attempt.and_then(|stream| {
                options.apply(&stream)?;
                let local = stream.local_addr()?;
                Ok(Connected { stream, local, name: Arc::clone(name) })
            });
            match prepared {
                Ok(connected) => return Ok(connected),
                Err(error) => {
                    failed(name);
                    attempts.push((Arc::clone(name), error));
                }
            }
        }
        Err(Unreachable { attempts })
    }
}

async fn connect(address: &UpstreamAddr) -> io::Result<TcpStream> {
    match address.host() {
        Host::Ip(ip) => TcpStream::connect((*ip, address.port())).await,
        // All addresses of the name are tried in the resolver's order.
        Host::Name(name) => TcpStream::connect((name.as_str(), address.port())).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_tried_once_from_the_one_whose_turn_it_is() {
        assert_eq!(turn(0, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(turn(4, 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(turn(usize::MAX, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(turn(7, 0).count(), 0);
    }

    #[tokio::test]
    async fn a_server_that_takes_no_connection_costs_its_time_limit_and_no_more() {
        use socket2::{Domain, Socket, Type};

        let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        full.listen(0).unwrap();
        let address = full.local_addr().unwrap();
        // Its backlog is full now: further SYNs stay unanswered.
        let filling: Vec<_> = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _in_progress = socket.connect(&address);
                socket
            })
            .collect();
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let parse = |address: SocketAddr| address.to_string().parse().unwrap();
        let full_name = address.as_socket().unwrap();
        let upstreams = Upstreams::new(vec![parse(full_name), parse(open.local_addr().unwrap())]);
        let options = TcpOptions::new(&crate::config::Timeouts::default());
        let failed = std::sync::Mutex::new(Vec::new());
        let note = |name: &str| failed.lock().unwrap().push(name.to_owned());
        let patience = Duration::from_millis(100);
        let connected = upstreams.connect(patience, options, note).await.unwrap();
        assert_eq!(*connected.name, *open.local_addr().unwrap().to_string());
        assert_eq!(*failed.lock().unwrap(), [full_name.to_string()]);
        drop(filling);
    }
}
