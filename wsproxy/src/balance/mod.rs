//! Which server a request goes to, as a state machine: no clock, no sockets.
//! Time comes in as a [`std::time::Duration`] since the start of the program.
//!
//! The order of a request:
//!
//! 1. [`Group::acquire`] names a server and counts the connection, or says to
//!    queue ([`Choice::Full`]) or to answer 503 ([`Choice::Nobody`]);
//! 2. [`Group::succeeded`] or [`Group::failed`] reports how it went; after a
//!    failure the request may try again, with the server in
//!    [`Request::tried`];
//! 3. the [`Lease`] is dropped when the connection ends.
//!
//! # Who is usable
//!
//! A server is usable when the operator has not disabled or drained it, the
//! health checks have not found it down, and it is not out by failed requests:
//! `max_fails` failures within `fail_timeout` take it out for `fail_timeout`,
//! then one request is let through, and how that goes decides. When all are
//! out, nobody is asked: overload heals faster without requests. The only
//! server of a group is never taken out by failures.
//!
//! # Consistent hashing
//!
//! [`Method::Hash`] is weighted rendezvous hashing: each server gets a hash of
//! its name and the key, the best one wins. It is a pure function of the key
//! and of the servers' names and weights, so gateways that share nothing choose
//! alike. When a server is out, each of its keys goes to its own next choice
//! and no other key moves; a changed weight moves only the keys it must. Maglev
//! and hash rings choose faster, but need a table that is computed anew on each
//! change, moves keys of servers that did not change, meets the weights only
//! roughly and knows no next choice. A group has at most [`MAX_SERVERS`]
//! servers, so a pass over all of them (a few microseconds) is the better deal.

mod group;
mod hash;
mod pick;
mod server;
#[cfg(test)]
mod tests;
mod types;

pub use group::Group;
pub use hash::{client_key, hash_key};
pub use server::Lease;
pub use types::{
    Choice, GroupConfig, GroupError, MAX_FAILS, MAX_SERVERS, MAX_WEIGHT, Method, Request,
    ServerConfig, ServerId, ServerState, ServerStatus,
};
