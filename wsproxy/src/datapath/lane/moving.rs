//! Bytes on their way from S to T through user space.

use std::{io, sync::atomic::Ordering};

use super::{
    Attachment, Fault, Lane, Residue, SharedDirection, Wire, frames::is_followed, is_wait,
};

impl Lane {
    /// Writes the residue, and frames of our own that are due; true when nothing is left of it.
    pub(super) fn flush(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        now_ns: u64,
    ) -> Result<bool, Fault> {
        let Some(mut residue) = self.residue.take() else {
            return self.say_own(wire, record);
        };
        residue.written += self.write(wire, record, &residue.bytes[residue.written..], now_ns)?;
        if self.keeps_none(record, &residue.bytes[residue.written..]) {
            return Ok(true);
        }
        self.residue = Some(residue);
        Ok(false)
    }

    /// Writes `bytes`, keeping as residue what T has no room for.
    pub(super) fn forward(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        bytes: &[u8],
        now_ns: u64,
    ) -> Result<(), Fault> {
        if let Some(residue) = &mut self.residue {
            // The answer to a Ping was cut out of what T has no room for.
            residue.bytes.extend(bytes);
            return Ok(());
        }
        let written = self.write(wire, record, bytes, now_ns)?;
        let rest = &bytes[written..];
        if !self.keeps_none(record, rest) {
            self.residue = Some(Box::new(Residue { bytes: rest.to_vec(), written: 0 }));
        }
        Ok(())
    }

    /// Whether nothing of `rest`, which was not written to T, is to be kept for it.
    fn keeps_none(&mut self, record: &SharedDirection, rest: &[u8]) -> bool {
        if self.has_said_farewell() {
            self.listen(record, rest);
            return true;
        }
        rest.is_empty() || self.forbidden() != 0
    }

    /// Writes to T until all is written, T is full, T has got our Close, or a frame is forbidden;
    /// frames of our own go between those of S. Returns how many of `bytes` were written.
    fn write(
        &mut self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        bytes: &[u8],
        now_ns: u64,
    ) -> Result<usize, Fault> {
        let mut done = 0;
        loop {
            let said = self.say_own(wire, record)?;
            if !said || done == bytes.len() || self.has_said_farewell() || self.forbidden() != 0 {
                return Ok(done);
            }
            let rest = &bytes[done..];
            let (until, broken) = self.permitted(record, rest);
            let sent = self.pass(wire, record, &rest[..until], now_ns)?;
            done += sent;
            if sent < until {
                return Ok(done);
            }
            if broken != 0 {
                self.framing().forbid(broken);
            }
        }
    }

    /// How many of `bytes` may be written before something of our own: up to the end of S's frame
    /// where a frame of ours waits, up to a frame that breaks an enforced rule (and which).
    fn permitted(&self, record: &SharedDirection, bytes: &[u8]) -> (usize, u16) {
        let rules = record.rules();
        if !is_followed(record) || (rules.enforced == 0 && !self.has_own()) {
            return (bytes.len(), 0);
        }
        let mut until = bytes.len();
        if self.has_own() {
            until = record.cursor().advance_to_boundary(bytes, rules);
        }
        if rules.enforced != 0 {
            let mut ahead = record.cursor();
            if let Some(at) = ahead.advance_to_forbidden(&bytes[..until], rules) {
                return (at, ahead.violations & rules.enforced);
            }
        }
        (until, 0)
    }

    /// Writes frames of our own where they may stand; false: T is full before their end.
    fn say_own(&mut self, wire: &mut impl Wire, record: &SharedDirection) -> Result<bool, Fault> {
        let Some(framing) = self.framing.as_mut().filter(|framing| framing.has_own()) else {
            return Ok(true);
        };
        let cursor = record.cursor();
        if cursor.counts.closes > 0 && framing.due(false).is_none() {
            // Behind S's Close nothing goes to T (section 5.5.1).
            framing.drop_own();
            return Ok(true);
        }
        let shared = self.attachment != Attachment::None;
        while let Some(rest) = framing.due(cursor.at_boundary()) {
            match send(wire, record, rest, shared) {
                Ok(n) => {
                    self.told = framing.took(n, cursor).unwrap_or(self.told);
                    self.said_own |= !framing.has_own();
                }
                Err(e) if is_wait(&e) => return Ok(false),
                Err(e) => return Err(Fault::Target(e)),
            }
        }
        if framing.is_idle() {
            self.framing = None;
        }
        Ok(true)
    }

    /// Writes bytes of S to T until all are written or T is full.
    fn pass(
        &self,
        wire: &mut impl Wire,
        record: &SharedDirection,
        bytes: &[u8],
        now_ns: u64,
    ) -> Result<usize, Fault> {
        let shared = self.attachment != Attachment::None;
        let mut done = 0;
        while done < bytes.len() {
            match send(wire, record, &bytes[done..], shared) {
                Ok(n) => {
                    if shared {
                        record.relayed.fetch_add(n as u64, Ordering::SeqCst);
                    }
                    follow(record, &bytes[done..done + n]);
                    done += n;
                    // User space alone writes this one, from the engine's thread.
                    let moved = record.relay_bytes.load(Ordering::Relaxed);
                    record.relay_bytes.store(moved + n as u64, Ordering::Relaxed);
                    record.last_activity_ns.store(now_ns, Ordering::Relaxed);
                }
                Err(e) if is_wait(&e) => break,
                Err(e) => return Err(Fault::Target(e)),
            }
        }
        Ok(done)
    }
}

/// One write to T. For the verdict program `handed` counts the bytes before they go, as it does
/// itself, and is corrected after a short write.
fn send(
    wire: &mut impl Wire,
    record: &SharedDirection,
    bytes: &[u8],
    shared: bool,
) -> io::Result<usize> {
    let want = bytes.len() as u64;
    if shared {
        record.handed.fetch_add(want, Ordering::SeqCst);
    }
    let sent = wire.send(bytes);
    let short = want - sent.as_ref().map_or(0, |n| *n as u64);
    if shared && short > 0 {
        record.handed.fetch_sub(short, Ordering::SeqCst);
    }
    match sent {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        other => other,
    }
}

/// Leads the frame cursor over bytes of S that T has got.
fn follow(record: &SharedDirection, bytes: &[u8]) {
    if is_followed(record) {
        let mut cursor = record.cursor();
        cursor.advance(bytes, record.rules());
        record.set_cursor(&cursor);
    }
}
