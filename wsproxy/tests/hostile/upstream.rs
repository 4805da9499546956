//! The server behind the program that is attacked.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use socket2::{Domain, Socket, Type};

use super::support::switch;

/// A server of many connections: it echoes in sessions, reads bodies and does not answer, sends
/// without end where asked for `/endless`, and never answers `/mute`.
pub struct Upstream {
    pub address: SocketAddr,
    pub sent: Arc<AtomicU64>,
    pub received: Arc<AtomicU64>,
}

impl Upstream {
    pub fn start() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Inherited: so that what is written is soon in the hands of the gateway, or stuck.
        socket.set_send_buffer_size(64 << 10).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1024).unwrap();
        let listener = TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let counts: [Arc<AtomicU64>; 2] = Default::default();
        let [sent, received] = counts.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let [sent, received] = counts.clone();
                // It ends with its connection, however that ends.
                thread::spawn(move || Self::serve(stream, &sent, &received));
            }
        });
        Self { address, sent, received }
    }

    fn serve(mut stream: TcpStream, sent: &AtomicU64, received: &AtomicU64) -> io::Result<()> {
        let mut head = Vec::new();
        let (mut buffer, mut byte) = ([0; 16 << 10], [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        if head.to_lowercase().contains("upgrade: websocket") {
            stream.write_all(switch("").as_bytes())?;
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(&buffer[..n])?,
                }
            }
        }
        if head.contains("/endless") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            loop {
                let n = stream.write(&buffer)?;
                sent.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
        if !head.starts_with("GET ") || head.contains("/mute") {
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => received.fetch_add(n as u64, Ordering::Relaxed),
                };
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    }
}
