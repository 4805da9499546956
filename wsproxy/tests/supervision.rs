//! What the program says to the two sides of a session, and what it does about their frames: Close
//! frames, pings, limits, counts. The same on the relay, on the kernel path and with TLS on both
//! sides.
#![cfg(target_os = "linux")]

/// A test of each function over each way of carrying bytes. Those under `plain` do without TLS,
/// where that makes no difference: the relay carries it.
macro_rules! over {
    (all: $($all:ident),*; plain: $($plain:ident),* $(;)?) => {
        mod over {
            use crate::bench::{Carrier, on_each};
            $(#[test] fn $all() { on_each(&Carrier::ALL, super::$all); })*
            $(#[test] fn $plain() { on_each(&Carrier::ALL[..2], super::$plain); })*
        }
    };
}

#[path = "supervision/bench.rs"]
mod bench;
#[path = "supervision/counts.rs"]
mod counts;
#[path = "supervision/gone.rs"]
mod gone;
#[path = "supervision/operator.rs"]
mod operator;
#[path = "supervision/pings.rs"]
mod pings;
#[path = "supervision/rules.rs"]
mod rules;
#[path = "supervision/stop.rs"]
mod stop;
mod support;
#[path = "supervision/time.rs"]
mod time;
#[path = "support/tls.rs"]
mod tls_support;
