//! A datapath of the test's own, without a gateway.

use std::{io, sync::Arc, time::Duration};

use wsproxy::datapath::{
    Companion, Datapath, Entry, Farewell, Mode, Observer, Options, SessionEnd, SessionMeta,
};

/// Expects to hear nothing: sessions that there are go on as they do.
struct Deaf;

impl Observer for Deaf {
    fn ended(&self, end: &SessionEnd, _: Option<Companion>) {
        panic!("{end:?}");
    }

    fn fell_back(&self, _: &SessionMeta, reason: &'static str, error: &io::Error) {
        panic!("{reason}: {error}");
    }
}

/// A small one, with limits that no test reaches.
pub fn options(mode: Mode) -> Options {
    Options {
        mode,
        max_sessions: 8,
        workers: 2,
        relay_buffer: 64 << 10,
        idle: None,
        drain: Duration::from_secs(5),
        farewell: Farewell::default(),
        window: Duration::ZERO,
        entry: Entry::AtOnce,
        packets: mode == Mode::Packet,
        persist: None,
        tcx: true,
    }
}

/// One in which no session begins, ends or changes its path.
pub fn start(options: Options) -> Datapath {
    Datapath::start(options, Arc::new(Deaf)).unwrap()
}
