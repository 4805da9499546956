//! Sessions that are only there: idle, or with a reader that does not read.

use std::{net::TcpStream, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    Target,
    messages::{self, Messages},
    wire::{Transport, Wire},
};
use crate::{
    machine, opening,
    pattern::Pattern,
    results::{Figures, Memory},
};

/// So long after the last session memory has come to rest.
const REST: Duration = Duration::from_millis(1500);
/// Payload of the one message of an idle session, in bytes.
const MESSAGE: usize = 64;
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
        slab_kib: after.slab_kib - before.slab_kib,
    }
}

/// Memory of sessions that were opened and then said nothing.
///
/// # Errors
/// A session that did not open.
pub fn idle(target: &Target, sessions: usize, processes: &[u32]) -> Result<Figures> {
    memory_of(sessions, processes, |count| open(target, "/echo", count))
}

/// Memory of sessions in which each side sent one message and then nothing.
///
/// # Errors
/// A session that did not open, or whose message did not come back.
pub fn idle_after_a_message(
    target: &Target,
    transport: &Transport,
    sessions: usize,
) -> Result<Figures> {
    memory_of(sessions, &target.processes, |count| {
        let one = |number: usize| {
            open_and_echo(target, transport).with_context(|| format!("session {number}"))
        };
        (0..count).map(one).collect::<Result<Vec<Wire>>>()
    })
}

fn memory_of<T>(
    sessions: usize,
    processes: &[u32],
    open: impl Fn(usize) -> Result<T>,
) -> Result<Figures> {
    // Whatever is allocated once, by the first sessions, is no cost of a session.
    drop(open(64)?);
    std::thread::sleep(REST);
    let before = machine::Used::now(processes)?;
    let held = open(sessions)?;
    std::thread::sleep(REST);
    let after = machine::Used::now(processes)?;
    drop(held);
    let memory = Some(memory(before, after, sessions));
    Ok(Figures { memory, ..Figures::default() })
}

fn open_and_echo(target: &Target, transport: &Transport) -> Result<Wire> {
    let mut wire = Wire::connect_and_wait(target.address, transport)?;
    wire.send(opening::request(target.address, "/echo").as_bytes())?;
    let mut bytes = Vec::new();
    let length = wire.receive_until(&mut bytes, opening::head_length)?;
    if !opening::accepts(&bytes[..length]) {
        return Err(opening::not_accepted(&bytes).into());
    }
    bytes.drain(..length);
    wire.send(Pattern::masked(MESSAGE).set(0))?;
    let mut echo = Pattern::plain(MESSAGE);
    let echo = echo.set(0);
    wire.receive_until(&mut bytes, |bytes| (bytes.len() >= echo.len()).then_some(()))?;
    ensure!(bytes == echo, "the message came back as {bytes:?}");
    Ok(wire)
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
