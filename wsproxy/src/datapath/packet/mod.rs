//! The packet path: after the handshake a session's packets are translated and
//! redirected, one by one, and the gateway's TCP sees none of them.

mod netlink;
pub mod ways;
