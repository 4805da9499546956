//! Everybody gets the same small message at the same time, at a fixed rate.

use std::io::Read as _;

use anyhow::{Result, bail};

use super::{Target, Window};
use crate::{
    opening,
    pattern::Pattern,
    poll::{Poll, now, now_or_later},
    results::Figures,
};

/// Latency of each message at each session, from the intended time of sending.
///
/// # Errors
/// A session that did not open, broke, stalled or brought a frame that is not one of ours.
pub fn run(target: &Target, payload: usize, sessions: usize, rate: u32) -> Result<Figures> {
    let mut poll = Poll::new()?;
    let mut pattern = Pattern::plain(payload);
    let size = pattern.size();
    let number_at = size - pattern.payload();
    let mut open = Vec::new();
    for place in 0..sessions {
        let path = format!("/broadcast/{payload}/{rate}");
        let (stream, early) = opening::open(target.address, &path)?;
        poll.add(&stream, place, true, false)?;
        open.push((stream, early, 0_u64));
    }
    let mut window = Window::new(target)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let due = window.due();
        for socket in poll.wait(due)? {
            let (stream, rest, last) = &mut open[socket.place];
            let Some(count) = now_or_later(stream.read(&mut buffer))? else { continue };
            if count == 0 {
                bail!("closed by the other side");
            }
            rest.extend_from_slice(&buffer[..count]);
            let now = now();
            let mut frames = rest.chunks_exact(size);
            for frame in &mut frames {
                // The number is the time at which the upstream meant to send it.
                let mut number = [0; 8];
                number.copy_from_slice(&frame[number_at..number_at + 8]);
                let sent = u64::from_be_bytes(number);
                if frame != pattern.set(sent) || sent <= *last {
                    bail!("session {}: not the frame that was sent", socket.place);
                }
                *last = sent;
                window.arrived(now, 1, payload as u64);
                window.took(now.saturating_sub(sent));
            }
            let left = frames.remainder().len();
            rest.drain(..rest.len() - left);
        }
        if !window.goes_on(target, now())? {
            return window.finish();
        }
    }
}
