//! What this host has. What can't be read is not known: nothing is guessed.

use std::{fs, path::Path};

use crate::limits;

/// What a host has of what sessions take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Most descriptors that this process may have: the hard limit, or what it may raise it to.
    pub descriptors: Option<u64>,
    /// Most descriptors that any process may be given (`fs.nr_open`).
    pub nr_open: Option<u64>,
    /// Files that may still be opened on the whole system.
    pub free_files: Option<u64>,
    /// Local ports that connections may take, without those that are reserved.
    pub ports: Option<u64>,
    /// Bytes of memory that are at hand.
    pub memory: Option<u64>,
    /// Bytes that the control group of this process may have.
    pub memory_limit: Option<u64>,
    /// Pages that TCP may have before it saves (`net.ipv4.tcp_mem`, the second number).
    pub tcp_pages: Option<u64>,
    /// Descriptors that a user's epolls may watch.
    pub epoll_watches: Option<u64>,
    /// Connections that may still be tracked; none where none is tracked.
    pub conntrack_free: Option<u64>,
    /// The longest queue of connections that wait to be accepted.
    pub backlog: Option<u64>,
    /// Connections that may be in TIME_WAIT.
    pub time_wait: Option<u64>,
}

impl Host {
    /// This host, as its `/proc` and `/sys` say. How many descriptors there may be is tried, as
    /// the gateway itself does at its start: this process may have as many from then on.
    #[must_use]
    pub fn this(descriptors: u64) -> Self {
        let mut host = Self::read(Path::new("/"));
        host.descriptors = Some(limits::raise_descriptors(descriptors));
        host
    }

    /// A host whose `/proc` and `/sys` lie under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let sysctl = |name: &str| read(&root.join("proc/sys").join(name));
        let numbers = |name: &str| sysctl(name).map(|text| numbers(&text)).unwrap_or_default();
        let number = |name: &str, at: usize| numbers(name).get(at).copied();
        let (open, most) = (number("fs/file-nr", 0), number("fs/file-nr", 2));
        let tracked = number("net/netfilter/nf_conntrack_count", 0);
        let trackable = number("net/netfilter/nf_conntrack_max", 0);
        Self {
            descriptors: None,
            nr_open: number("fs/nr_open", 0),
            free_files: most.zip(open).map(|(most, open)| most.saturating_sub(open)),
            ports: sysctl("net/ipv4/ip_local_port_range").and_then(|range| {
                let reserved = sysctl("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
                ports(&range, &reserved)
            }),
            memory: read(&root.join("proc/meminfo")).and_then(|text| available(&text)),
            memory_limit: memory_limit(root),
            tcp_pages: number("net/ipv4/tcp_mem", 1),
            epoll_watches: number("fs/epoll/max_user_watches", 0),
            conntrack_free: trackable.zip(tracked).map(|(most, now)| most.saturating_sub(now)),
            backlog: number("net/core/somaxconn", 0),
            time_wait: number("net/ipv4/tcp_max_tw_buckets", 0),
        }
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace().map_while(|word| word.parse().ok()).collect()
}

/// Ports of a range, first and last one included, that are not among the reserved ones
/// (`8080,9000-9100`).
fn ports(range: &str, reserved: &str) -> Option<u64> {
    let range = numbers(range);
    let (&first, &last) = (range.first()?, range.get(1)?);
    let mut taken = vec![false; usize::try_from(last.checked_sub(first)? + 1).ok()?.min(65_536)];
    for part in reserved.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse::<u64>().ok()?, to.trim().parse::<u64>().ok()?);
        for port in from.max(first)..=to.min(last) {
            if let Some(place) = taken.get_mut(usize::try_from(port - first).ok()?) {
                *place = true;
            }
        }
    }
    u64::try_from(taken.iter().filter(|taken| !**taken).count()).ok()
}

/// `MemAvailable` in bytes; the file has KiB.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest `memory.max` from this process's control group up to the root (cgroup v2).
fn memory_limit(root: &Path) -> Option<u64> {
    let groups = read(&root.join("proc/self/cgroup"))?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = root.join("sys/fs/cgroup");
    let mut place = mount.join(group.trim_end());
    let mut least = None;
    while place.starts_with(&mount) {
        let limit = read(&place.join("memory.max")).and_then(|text| text.trim().parse().ok());
        least = match (least, limit) {
            (Some(a), Some(b)) => Some(u64::min(a, b)),
            (a, b) => a.or(b),
        };
        if !place.pop() {
            break;
        }
    }
    least
}
