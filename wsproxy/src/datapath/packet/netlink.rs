//! Questions to the kernel by netlink (RFC 3549): one at a time, each answered at once.

use std::{io, os::fd::OwnedFd, time::Duration};

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, parse_i32,
};
use rustix::{
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink, recv, send, socket_with, sockopt,
    },
};

/// The kernel answers while it is asked; it takes longer only where something is broken.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes. The kernel fills at most 32 KiB of a reader's buffer with parts of a list.
const BUFFER: usize = 64 << 10;
/// Datagrams of one answer, and notifications read at a time.
const MOST_DATAGRAMS: usize = 16 << 10;

/// One message of an answer.
pub struct Message<'a> {
    /// Its type, as the protocol numbers them.
    pub kind: u16,
    /// What stands behind the netlink header.
    pub body: &'a [u8],
}

/// A socket to ask with.
#[derive(Debug)]
pub struct Questions {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Questions {
    /// Opens a socket in this thread's network namespace; `None` is NETLINK_ROUTE.
    ///
    /// # Errors
    /// The kernel does not speak the protocol, or is out of sockets.
    pub fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC, protocol)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Asks, and calls `each` with every message of the answer.
    ///
    /// # Errors
    /// The error that the kernel answers with; `TimedOut` without an answer; `Interrupted` for a
    /// list that changed while it was read; `InvalidData` for what is no netlink.
    pub fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = question(kind, flags, self.sequence, body)?;
        retry_on_intr(|| send(&self.socket, &question, SendFlags::empty()))?;
        let mut interrupted = false;
        for _ in 0..MOST_DATAGRAMS {
            let length = self.receive()?;
            let Some(datagram) = self.buffer.get(..length) else { return Err(invalid("too long")) };
            let read = read_datagram(datagram, self.sequence, &mut each)?;
            interrupted |= read.interrupted;
            if read.ended {
                return if interrupted { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) };
            }
        }
        Err(invalid("an answer without an end"))
    }

    /// Reads a datagram into the buffer; its whole length, which may be more than the buffer's.
    fn receive(&mut self) -> io::Result<usize> {
        let received =
            retry_on_intr(|| recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC));
        match received {
            Ok((_, length)) => Ok(length),
            Err(Errno::AGAIN) => Err(io::ErrorKind::TimedOut.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A socket on which the kernel tells of changes.
#[derive(Debug)]
pub struct News(OwnedFd);

impl News {
    /// Listens to multicast groups of NETLINK_ROUTE, each 1 to 32 (`RTNLGRP_*`).
    ///
    /// # Errors
    /// The kernel is out of sockets, or has no such groups.
    pub fn open(groups: &[u32]) -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << ((group - 1) % u32::BITS));
        bind(&socket, &SocketAddrNetlink::new(0, mask))?;
        Ok(Self(socket))
    }

    /// Reads all there is; true if there was something, or something was lost for want of memory.
    pub fn drain(&self) -> bool {
        let mut any = false;
        for _ in 0..MOST_DATAGRAMS {
            // What it says does not matter: the rest of the datagram is dropped by the kernel.
            let mut start = [0; 16];
            match recv(&self.0, start.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // NOBUFS: notifications were lost; told once.
                Ok(_) | Err(_) => any = true,
            }
        }
        any
    }
}

fn open(flags: SocketFlags, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?)
}

/// An error for what the kernel should not have said.
pub fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {}", what.to_string()))
}

fn question(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut header = NetlinkHeader::default();
    let start = header.buffer_len();
    header.length = u32::try_from(start + body.len()).map_err(|_| invalid("a long question"))?;
    header.message_type = kind;
    header.flags = flags | NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut bytes = vec![0; start + body.len()];
    let (head, rest) = bytes.split_at_mut(start);
    header.emit(head);
    rest.copy_from_slice(body);
    Ok(bytes)
}

/// What a datagram told besides its messages.
#[derive(Debug, Default, PartialEq)]
struct Read {
    /// Nothing follows.
    ended: bool,
    /// The list changed while the kernel wrote it.
    interrupted: bool,
}

fn read_datagram(
    mut datagram: &[u8],
    sequence: u32,
    each: &mut impl FnMut(Message<'_>),
) -> io::Result<Read> {
    let mut read = Read::default();
    while !datagram.is_empty() {
        let buffer = NetlinkBuffer::new_checked(datagram).map_err(decoding)?;
        let length = buffer.length() as usize;
        // Late answers to a question that was given up are not this one's.
        if buffer.sequence_number() == sequence {
            let (kind, body) = (buffer.message_type(), buffer.payload());
            read.interrupted |= buffer.flags() & NLM_F_DUMP_INTR != 0;
            read.ended |= buffer.flags() & NLM_F_MULTIPART == 0;
            match kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    kernel_error(kind, body)?;
                    read.ended = true;
                }
                NLMSG_OVERRUN => return Err(invalid("data was lost")),
                NLMSG_NOOP => {}
                kind => each(Message { kind, body }),
            }
        }
        // Messages begin at multiples of 4.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(read)
}

/// The error number in front of an error's or an end's body: 0 is success. An end may be empty.
fn kernel_error(kind: u16, body: &[u8]) -> io::Result<()> {
    let code = match body.get(..4) {
        Some(code) => parse_i32(code).map_err(decoding)?,
        None if kind == NLMSG_DONE => 0,
        None => return Err(invalid("an error without a number")),
    };
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
}

/// As an error of input and output.
pub fn decoding(error: DecodeError) -> io::Error {
    invalid(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = question(kind, flags, sequence, body).unwrap();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn read(datagram: &[u8]) -> (Vec<(u16, Vec<u8>)>, io::Result<Read>) {
        let mut seen = Vec::new();
        let read = read_datagram(datagram, 7, &mut |m| seen.push((m.kind, m.body.to_vec())));
        (seen, read)
    }

    #[test]
    fn a_lone_message_is_the_whole_answer() {
        let (seen, read) = read(&message(24, 0, 7, b"abcde"));
        assert_eq!(seen, [(24, b"abcde".to_vec())]);
        assert_eq!(read.unwrap(), Read { ended: true, interrupted: false });
    }

    #[test]
    fn a_list_ends_with_done_wherever_that_is() {
        let parts = [
            message(16, NLM_F_MULTIPART, 7, b"a"),
            message(16, NLM_F_MULTIPART | NLM_F_DUMP_INTR, 7, b"bcd"),
        ]
        .concat();
        let (seen, first) = read(&parts);
        assert_eq!(seen.len(), 2);
        assert_eq!(first.unwrap(), Read { ended: false, interrupted: true });
        let (seen, end) = read(&message(NLMSG_DONE, NLM_F_MULTIPART, 7, &[0; 4]));
        assert!(seen.is_empty() && end.unwrap().ended);
        assert!(read(&message(NLMSG_DONE, NLM_F_MULTIPART, 7, &[])).1.unwrap().ended);
    }

    #[test]
    fn another_questions_answer_is_passed_over() {
        let late = message(24, 0, 6, b"late");
        let (seen, nothing) = read(&late);
        assert!(seen.is_empty() && !nothing.unwrap().ended);
        let (seen, both) = read(&[late, message(24, 0, 7, b"mine")].concat());
        assert_eq!(seen, [(24, b"mine".to_vec())]);
        assert!(both.unwrap().ended);
    }

    #[test]
    fn errors_keep_their_number() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let code = (-libc::ENETUNREACH).to_ne_bytes();
            let error = read(&message(kind, 0, 7, &code)).1.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
        }
    }

    #[test]
    fn nonsense_is_an_error_and_no_panic() {
        let good = message(24, 0, 7, b"abcdefgh");
        for cut in 1..good.len() {
            assert!(read(&good[..cut]).1.is_err(), "{cut}");
        }
        for length in 0..16u32 {
            let mut bytes = good.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(read(&bytes).1.is_err(), "{length}");
        }
        assert!(read(&message(NLMSG_ERROR, 0, 7, b"ab")).1.is_err());
        assert!(read(&message(NLMSG_ERROR, 0, 7, &i32::MIN.to_ne_bytes())).1.is_err());
    }
}
