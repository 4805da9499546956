//! For debugging: an object that logs each packet, and its lines.

use std::{borrow::Cow, thread};

use aya::Ebpf;
use aya_log::EbpfLogger;
use rustix::event::{PollFd, PollFlags, poll};

/// Names the object that `cargo xtask build-ebpf --log` made.
const OBJECT_ENV: &str = "WSPROXY_BPF_OBJECT";

/// The object to load instead of the embedded one.
pub(super) fn object() -> Option<Cow<'static, [u8]>> {
    let path = std::env::var_os(OBJECT_ENV)?;
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes.into()),
        Err(error) => {
            tracing::error!(?path, %error, "{OBJECT_ENV} can't be read; using the embedded object");
            None
        }
    }
}

/// Writes the object's log lines to our log, until the process ends.
pub(super) fn follow(object: &mut Ebpf) {
    let mut logger = match EbpfLogger::init(object) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the BPF object has no log: build it with `--log`");
            return;
        }
    };
    let follower = thread::Builder::new().name("wsproxy-bpf-log".into()).spawn(move || {
        loop {
            let waited = poll(&mut [PollFd::new(&logger, PollFlags::IN)], None);
            if waited.is_err() {
                return;
            }
            logger.flush();
        }
    });
    if let Err(error) = follower {
        tracing::warn!(%error, "nobody reads the BPF log");
    }
}
