//! The packet path: after the handshake both TCP connections of a session are one byte stream
//! shifted by constants, and the kernel translates and redirects packet by packet. The gateway's
//! sockets are frozen meanwhile, and its TCP sees none of the packets.

pub(crate) mod netlink;
pub mod plan;
pub mod socket;
pub mod ways;
