//! Capabilities of this thread, capabilities(7).

use rustix::thread::{
    CapabilitiesSecureBits as Bits, CapabilitySet, CapabilitySets, capabilities,
    capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use super::{PrivilegeError, system};

/// Those that messages and documents speak of, as capabilities(7) calls them.
const NAMES: [(&str, CapabilitySet); 10] = [
    ("CAP_DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("CAP_SETGID", CapabilitySet::SETGID),
    ("CAP_SETUID", CapabilitySet::SETUID),
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("CAP_SYS_RESOURCE", CapabilitySet::SYS_RESOURCE),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_BPF", CapabilitySet::BPF),
];

/// Their names.
#[must_use]
pub fn names(set: CapabilitySet) -> Vec<&'static str> {
    NAMES.iter().filter(|(_, one)| set.contains(*one)).map(|(name, _)| *name).collect()
}

/// What this thread can do now; nothing, where that can't be known.
#[must_use]
pub fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Which of `needed` are not there. `CAP_SYS_ADMIN` stands in for `CAP_BPF` and `CAP_PERFMON`,
/// which were split off from it in Linux 5.8.
#[must_use]
pub fn missing(needed: CapabilitySet) -> CapabilitySet {
    without(needed, effective())
}

fn without(needed: CapabilitySet, mut there: CapabilitySet) -> CapabilitySet {
    if there.contains(CapabilitySet::SYS_ADMIN) {
        there |= CapabilitySet::BPF | CapabilitySet::PERFMON;
    }
    needed - there
}

/// Whether this thread can become another user.
pub(super) fn may_change_user() -> bool {
    effective().contains(CapabilitySet::SETUID | CapabilitySet::SETGID)
}

/// Nothing that is started, and no change of the user, brings back what is not in `kept`. Without
/// `CAP_SETPCAP` (an unprivileged start) only `no_new_privs` does that: who started wsproxy chose
/// the bounding set.
pub(super) fn close_the_way_back(kept: CapabilitySet) -> Result<(), PrivilegeError> {
    if !effective().contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        // An error: the kernel has no more of them.
        let Ok(is_there) = capability_is_in_bounding_set(one) else { break };
        if is_there && !kept.contains(one) {
            remove_capability_from_bounding_set(one).map_err(system("bounding set"))?;
        }
    }
    let bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    // With NO_SETUID_FIXUP the change of the user leaves the sets alone (`security/commoncap.c`).
    set_capabilities_secure_bits(bits).map_err(system("securebits"))
}

/// Drops everything but `kept`.
pub(super) fn keep(kept: CapabilitySet) -> Result<(), PrivilegeError> {
    // A kernel before 4.3 has no ambient set.
    let _none = clear_ambient_capability_set();
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).map_err(system("capset"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_has_a_name() {
        let needed = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        let none = CapabilitySet::empty();
        assert_eq!(names(without(needed, none)), ["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
        assert_eq!(names(without(needed, CapabilitySet::SYS_ADMIN)), ["CAP_NET_ADMIN"]);
        assert_eq!(names(without(needed, needed)), [""; 0]);
    }
}
