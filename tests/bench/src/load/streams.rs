//! One-way streams as fast as they go, every byte compared.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result, bail};

use super::{Target, Window};
use crate::{
    opening,
    pattern::{Checked, Pattern},
    poll::{Poll, now, now_or_later},
    results::Figures,
};

const READ: usize = 256 << 10;

/// From the server to the client.
///
/// # Errors
/// A session that did not open, broke, stalled or brought a wrong byte.
pub fn down(target: &Target, payload: usize, sessions: usize) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let mut pattern = Pattern::plain(payload);
    let mut open = Vec::new();
    for place in 0..sessions {
        let (stream, early) = opening::open(target.address, &format!("/source/{payload}"))?;
        poll.add(&stream, place, true, false)?;
        let mut checked = Checked::default();
        feed(&mut checked, &mut pattern, &early)?;
        open.push((stream, checked));
    }
    let mut window = Window::new(target)?;
    let mut buffer = vec![0; READ];
    loop {
        let due = window.due();
        for socket in poll.wait(due)? {
            let (stream, checked) = &mut open[socket.place];
            let Some(count) = now_or_later(stream.read(&mut buffer))? else { continue };
            if count == 0 {
                bail!("closed by the other side");
            }
            let ended = feed(checked, &mut pattern, &buffer[..count])?;
            window.arrived(now(), ended, ended * payload as u64);
        }
        if !window.goes_on(target, now())? {
            return window.finish();
        }
    }
}

fn feed(checked: &mut Checked, pattern: &mut Pattern, data: &[u8]) -> Result<u64> {
    checked.feed(pattern, data).map_err(|wrong| anyhow::anyhow!("a wrong byte: {wrong:?}"))
}

/// From the client to the server, which checks and counts.
///
/// # Errors
/// A session that did not open, broke or stalled; an upstream in another process.
pub fn up(target: &Target, payload: usize, sessions: usize) -> Result<Figures> {
    target.upstream.as_ref().context("only our own upstream counts what arrives")?;
    let mut poll = Poll::new()?;
    let mut pattern = Pattern::masked(payload);
    let mut open: Vec<(TcpStream, u64, usize)> = Vec::new();
    for place in 0..sessions {
        let (stream, _) = opening::open(target.address, &format!("/sink/{payload}"))?;
        poll.add(&stream, place, true, true)?;
        open.push((stream, 0, 0));
    }
    let mut window = Window::new(target)?;
    loop {
        let due = window.due();
        for socket in poll.wait(due)? {
            let (stream, number, written) = &mut open[socket.place];
            if socket.readable && now_or_later(stream.read(&mut [0; 1]))? == Some(0) {
                bail!("closed by the other side");
            }
            // A turn each, so that the window's end is not missed.
            for _ in 0..8 {
                let rest = &pattern.set(*number)[*written..];
                let Some(count) = now_or_later(stream.write(rest))? else { break };
                window.progress(now());
                *written += count;
                if *written == pattern.size() {
                    *written = 0;
                    *number += 1;
                }
            }
        }
        if !window.goes_on(target, now())? {
            return window.finish_at_upstream(target);
        }
    }
}
