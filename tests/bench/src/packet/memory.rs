//! Memory that the kernel spends on an idle session above its two frozen sockets: what BPF maps
//! hold for it.
//!
//! The kernel tells a map's memory in `/proc/PID/fdinfo` of who has it open (`memlock`). Of the
//! keys, which are allocated session by session, that is measured without sessions and with many.
//! The records are one array for all places there may be; a session's are computed.

use std::{
    fs,
    io::{ErrorKind, Read, Write as _},
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wsproxy_common::{
    Direction,
    packet::{Flow, FlowKey},
};

use super::Plan;
use crate::{
    contender::{Contender, Kind},
    opening,
    pattern::Pattern,
    place::{Site, Topology, UPSTREAM},
    upstream::Upstream,
};

/// Payload of the messages that bring sessions onto the packet path, in bytes.
const MESSAGE: usize = 64;
/// Sessions that are not all there after so long will never be.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two messages of a session.
const PAUSE: Duration = Duration::from_millis(100);
/// `BPF_MAP_TYPE_HASH`.
const HASH: u64 = 1;

/// What a session costs, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Idle sessions on the packet path.
    pub sessions: usize,
    /// Of the records of its two directions; computed.
    pub records: f64,
    /// Of its two keys; measured.
    pub keys: f64,
    /// Its share of what the keys' map needs without any session, if all places there may be are
    /// taken; measured.
    pub buckets: f64,
    /// Of the two records that every session has on whatever path, with its frame cursors;
    /// computed. Not in the sum.
    pub shared: f64,
}

impl Idle {
    /// All of it.
    #[must_use]
    pub fn all(&self) -> f64 {
        self.records + self.keys + self.buckets
    }
}

/// The keys' map.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Keys {
    /// Bytes.
    memory: u64,
    /// Directions that there may be.
    most: u64,
}

/// Opens sessions at a gateway of its own, has them come onto the packet path, and compares.
///
/// # Errors
/// A session that does not come there, or a kernel that does not tell.
pub(super) fn measure(plan: &Plan) -> Result<Idle> {
    let site = Site::new(Topology::Routed)?;
    let _upstream = site.at_server(|| Upstream::start(([0, 0, 0, 0], UPSTREAM).into()))?;
    let contender = Contender::start(Kind::Packet, &site, &plan.folder, &plan.wsproxy)?;
    let main = *contender.processes().first().context("no process")?;
    // The first one shows that the maps are those of the sessions.
    let mut held = site.at_client(|| open(&contender, 1))?;
    bring_in(&site, &contender, &mut held)?;
    let before = keys_of(main)?;
    held.extend(site.at_client(|| open(&contender, plan.idle))?);
    bring_in(&site, &contender, &mut held)?;
    let after = keys_of(main)?;
    ensure!(after.memory > before.memory, "the kernel does not count the keys' memory");
    let keys = (after.memory - before.memory) as f64 / plan.idle as f64;
    Ok(Idle {
        sessions: plan.idle,
        records: 2.0 * size_of::<Flow>() as f64,
        keys,
        buckets: (before.memory as f64 - keys) / (before.most as f64 / 2.0),
        shared: 2.0 * size_of::<Direction>() as f64,
    })
}

fn open(contender: &Contender, count: usize) -> Result<Vec<TcpStream>> {
    let one = |number: usize| {
        let (stream, _) = opening::open(contender.address, "/echo")
            .with_context(|| format!("session {number}"))?;
        anyhow::Ok(stream)
    };
    (0..count).map(one).collect()
}

/// Sends messages until all sessions are where they should be.
fn bring_in(site: &Site, contender: &Contender, held: &mut [TcpStream]) -> Result<()> {
    let (mut sent, mut answer) = (Pattern::masked(MESSAGE), Pattern::plain(MESSAGE));
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        let there = contender.on_packet_path(site).unwrap_or(0);
        if there == held.len() as u64 {
            break;
        }
        ensure!(Instant::now() < deadline, "{there} of {} sessions came", held.len());
        for stream in &mut *held {
            stream.write_all(sent.set(number))?;
        }
        let wanted = answer.set(number);
        for stream in &mut *held {
            receive(stream, wanted, deadline)?;
        }
        sleep(PAUSE);
    }
    Ok(())
}

/// The sockets do not block.
fn receive(stream: &mut impl Read, wanted: &[u8], deadline: Instant) -> Result<()> {
    let mut bytes = vec![0; wanted.len()];
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => anyhow::bail!("closed by the other side"),
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ensure!(Instant::now() < deadline, "no answer");
                sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(bytes == wanted, "the message came back as {bytes:?}");
    Ok(())
}

fn keys_of(process: u32) -> Result<Keys> {
    let folder = format!("/proc/{process}/fdinfo");
    let entries = fs::read_dir(&folder).with_context(|| folder.clone())?;
    // A descriptor may be gone by now.
    let texts = entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // One that was made to find out what the kernel can is smaller.
    let found = texts.filter_map(|text| keys(&text)).max_by_key(|keys| keys.most);
    found.context("the process has no map of keys open")
}

/// Of a descriptor's text, if it is the keys' map.
fn keys(text: &str) -> Option<Keys> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().parse().ok()
    };
    let is = field("map_type")? == HASH && field("key_size")? == size_of::<FlowKey>() as u64;
    is.then_some(Keys { memory: field("memlock")?, most: field("max_entries")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_known_by_their_size() {
        let text = "pos:\t0\nflags:\t02000002\nmap_type:\t1\nkey_size:\t36\nvalue_size:\t4\n\
                    max_entries:\t4000\nmap_flags:\t0x1\nmap_extra:\t0x0\nmemlock:\t66048\n\
                    map_id:\t7\nfrozen:\t0\n";
        assert_eq!(keys(text), Some(Keys { memory: 66_048, most: 4000 }));
        assert_eq!(keys(&text.replace("key_size:\t36", "key_size:\t8")), None, "another hash");
        assert_eq!(keys("pos:\t0\nflags:\t02\n"), None, "no map");
    }
}
