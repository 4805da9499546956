//! The descriptor limit, and how many sessions fit under it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a session needs: the client's and the upstream's socket.
const PER_SESSION: u64 = 2;
/// Descriptors kept for everything else: listeners, epolls, BPF, logs, admin
/// and handshakes under way.
const RESERVED: u64 = 256;
/// Sessions without a configured limit, however many descriptors there are:
/// the table of records takes 256 bytes of memory for each.
pub const MOST_BY_DEFAULT: u64 = 100_000;

/// Raises the soft descriptor limit to the hard one and, where we may, the
/// hard one to `wanted` descriptors. Returns what is in force.
#[must_use]
pub fn raise_descriptors(wanted: u64) -> u64 {
    let before = getrlimit(Resource::Nofile);
    let hard = before.maximum.unwrap_or(u64::MAX);
    let both = |n| Rlimit { current: Some(n), maximum: Some(n) };
    if wanted > hard {
        // Needs CAP_SYS_RESOURCE, and no system takes every number.
        let _refused = setrlimit(Resource::Nofile, both(wanted));
    }
    let now = getrlimit(Resource::Nofile);
    if let Some(hard) = now.maximum
        && now.current.is_some_and(|soft| soft < hard)
    {
        let _refused = setrlimit(Resource::Nofile, both(hard));
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors for this many sessions.
#[must_use]
pub fn descriptors_for(sessions: u32) -> u64 {
    u64::from(sessions) * PER_SESSION + RESERVED
}

/// Sessions for this many descriptors; at least 1.
#[must_use]
pub fn sessions_for(descriptors: u64) -> u32 {
    let sessions = descriptors.saturating_sub(RESERVED) / PER_SESSION;
    u32::try_from(sessions.clamp(1, MOST_BY_DEFAULT)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_follow_from_descriptors_and_back() {
        for (descriptors, sessions) in [(0, 1), (256, 1), (258, 1), (20_000, 9_872)] {
            assert_eq!(sessions_for(descriptors), sessions, "{descriptors}");
        }
        assert_eq!(sessions_for(u64::MAX), 100_000);
        assert_eq!(sessions_for(descriptors_for(5_000)), 5_000);
    }

    #[test]
    fn raising_never_lowers() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(raise_descriptors(0) >= before);
    }
}
