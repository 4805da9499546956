//! Sessions that are only there: idle, or with a reader that does not read.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context as _, Result};

use super::{
    Target,
    messages::{self, Messages},
};
use crate::{
    machine, opening,
    results::{Figures, Memory},
};

/// So long after the last session memory has come to rest.
const REST: Duration = Duration::from_millis(1500);
/// How long slow readers fill buffers before anything is measured.
const FILL: Duration = Duration::from_secs(2);

fn open(target: &Target, path: &str, count: usize) -> Result<Vec<TcpStream>> {
    let one = |number: usize| {
        let opened = opening::open(target.address, path);
        opened.map(|(stream, _)| stream).with_context(|| format!("session {number}"))
    };
    (0..count).map(one).collect()
}

fn memory(before: machine::Used, after: machine::Used, sessions: usize) -> Memory {
    Memory {
        sessions: sessions as u64,
        user_kib: after.user_kib - before.user_kib,
        kernel_kib: after.kernel_kib - before.kernel_kib,
    }
}

/// Memory of sessions in which each side sent one message and then nothing.
///
/// # Errors
/// A session that did not open.
pub fn idle(target: &Target, sessions: usize, processes: &[u32]) -> Result<Figures> {
    // Whatever is allocated once, by the first sessions, is no cost of a session.
    drop(open(target, "/echo", 64)?);
    std::thread::sleep(REST);
    let before = machine::Used::now(processes)?;
    let held = open(target, "/echo", sessions)?;
    std::thread::sleep(REST);
    let after = machine::Used::now(processes)?;
    drop(held);
    let memory = Some(memory(before, after, sessions));
    Ok(Figures { memory, ..Figures::default() })
}

/// Memory behind readers that never read while the server sends all it can, and the latency of
/// others meanwhile.
///
/// # Errors
/// A session that did not open or broke.
pub fn slow_readers(target: &Target, slow: usize, processes: &[u32]) -> Result<Figures> {
    std::thread::sleep(REST);
    let before = machine::Used::now(processes)?;
    let held = open(target, "/source/65536", slow)?;
    std::thread::sleep(FILL);
    let others = Messages { payloads: vec![64], sessions: 16, rate: None };
    let mut figures = messages::run(target, &others)?;
    let after = machine::Used::now(processes)?;
    drop(held);
    figures.memory = Some(memory(before, after, slow));
    Ok(figures)
}
