//! What the kernel path needs, each thing tried, none guessed from a version.

use std::{io, os::fd::AsFd as _};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported},
};

use wsproxy_common::layout::{PACKET_PROGRAM, SPLICE_PROGRAM};

use super::{BTF_PATH, Kernel, LoadError, Loaded, btf, selftest};
use crate::sys::repair::{self, Repair};

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Yes,
    /// It is not.
    No,
    /// It could not be tried, for want of permission mostly.
    Unknown,
}

impl Outcome {
    /// The word for people and scripts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "could not tell",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What.
    pub name: &'static str,
    /// The kernel path does not run without it.
    pub needed: bool,
    /// Whether it is there.
    pub outcome: Outcome,
    /// What was found, in a few words; may be empty.
    pub detail: String,
    /// What to do about a no.
    pub remedy: &'static str,
}

/// Bits of `CapEff` (`include/uapi/linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

const NEEDS_KERNEL: &str = "use a kernel of 6.1 or later with CONFIG_BPF_SYSCALL and CONFIG_NET";
const NEEDS_FOR_PACKETS: &str =
    "use a kernel of 6.1 or later with CONFIG_NET_CLS_BPF and CONFIG_NET_CLS_ACT";
/// Sessions that a probe makes room for.
const SLOTS: u32 = 8;
const NEEDS_CAPABILITY: &str =
    "run as root, or give the capability (systemd: AmbientCapabilities=, files: setcap)";

/// Tries everything. Takes tens of milliseconds as root.
#[must_use]
pub fn all() -> Vec<Probe> {
    let status = std::fs::read_to_string("/proc/self/status");
    let mut probes = capabilities(status.as_deref().ok().and_then(effective_capabilities));
    probes.push(btf_fields());
    probes.push(jit());
    probes.push(map("socket map (SOCKMAP)", MapType::SockMap));
    probes.push(map("ring buffer", MapType::RingBuf));
    probes.push(match is_program_supported(ProgramType::SkSkb) {
        Ok(found) => probe("sk_skb programs", true, yes_no(found), String::new(), NEEDS_KERNEL),
        Err(error) => unknown("sk_skb programs", true, &error),
    });
    for (name, helper) in [
        ("helper bpf_sk_redirect_map", BpfHelper::BPF_FUNC_sk_redirect_map),
        ("helper bpf_skc_to_tcp_sock", BpfHelper::BPF_FUNC_skc_to_tcp_sock),
        ("helper bpf_skb_pull_data", BpfHelper::BPF_FUNC_skb_pull_data),
        ("helper bpf_ktime_get_coarse_ns", BpfHelper::BPF_FUNC_ktime_get_coarse_ns),
        ("helper bpf_loop", BpfHelper::BPF_FUNC_loop),
    ] {
        probes.push(match is_helper_supported(ProgramType::SkSkb, helper) {
            Ok(found) => probe(name, true, yes_no(found), String::new(), NEEDS_KERNEL),
            Err(error) => unknown(name, true, &error),
        });
    }
    probes.extend(object());
    probes.extend(packets());
    probes.extend(translating());
    probes
}

/// What the packet path needs besides; without it sessions take another path.
fn packets() -> Vec<Probe> {
    let kind = ProgramType::SchedClassifier;
    let helper = |name, helper| answer(name, is_helper_supported(kind, helper));
    vec![
        answer("packet path: tc programs (sched_cls)", is_program_supported(kind)),
        helper("packet path: helper bpf_redirect_neigh", BpfHelper::BPF_FUNC_redirect_neigh),
        helper("packet path: helper bpf_l4_csum_replace", BpfHelper::BPF_FUNC_l4_csum_replace),
        repair(),
    ]
}

/// Whether the kernel takes the program that translates, and how it is attached.
fn translating() -> [Probe; 2] {
    let loaded = Kernel::load(SLOTS, true, None);
    let kept = loaded.as_ref().ok().map(|loaded| loaded.kernel.can_outlive());
    [whole(loaded.map(|loaded| verified(&loaded, PACKET_PROGRAM))), outliving(kept)]
}

/// What the verifier had to do for a program; a later kernel's may have much more to do, and one
/// that has too much refuses it.
fn verified(loaded: &Loaded, program: &str) -> String {
    let count = loaded.kernel.verified(program);
    count.map(|count| format!("{count} instructions verified")).unwrap_or_default()
}

/// Without it the packet path's program is attached by a classical filter, which a process that
/// is killed leaves behind, and nothing can be kept (`datapath.persist`).
fn outliving(kept: Option<Result<(), String>>) -> Probe {
    const NAME: &str = "packet path: attachments outlive the process (tcx)";
    const REMEDY: &str = "use a kernel of 6.6 or later; only `datapath.persist` needs it";
    match kept {
        Some(Ok(())) => probe(NAME, false, Outcome::Yes, String::new(), REMEDY),
        Some(Err(error)) => probe(NAME, false, Outcome::No, error, REMEDY),
        None => {
            let why = "the program can't be loaded".into();
            probe(NAME, false, Outcome::Unknown, why, REMEDY)
        }
    }
}

fn answer<E>(name: &'static str, found: Result<bool, E>) -> Probe
where
    E: std::error::Error,
{
    match found {
        Ok(found) => probe(name, false, yes_no(found), String::new(), NEEDS_FOR_PACKETS),
        Err(error) => unknown(name, false, &error),
    }
}

/// Whether sockets may be frozen, tried on one that nobody has connected.
fn repair() -> Probe {
    const NAME: &str = "packet path: sockets can be frozen (TCP_REPAIR)";
    const REMEDY: &str = "give CAP_NET_ADMIN, and use a kernel with CONFIG_CHECKPOINT_RESTORE";
    let tried = || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        repair::repair(socket.as_fd(), Repair::On)
    };
    match tried() {
        Ok(()) => probe(NAME, false, Outcome::Yes, String::new(), REMEDY),
        Err(error) => probe(NAME, false, Outcome::No, error.to_string(), REMEDY),
    }
}

/// Whether the kernel takes the program that translates.
fn whole(loaded: Result<String, LoadError>) -> Probe {
    const NAME: &str = "packet path: its program loads";
    match loaded {
        Ok(verified) => probe(NAME, false, Outcome::Yes, verified, NEEDS_FOR_PACKETS),
        Err(error @ LoadError::Forbidden(_)) => unknown(NAME, false, &error),
        Err(error) => probe(NAME, false, Outcome::No, error.to_string(), NEEDS_FOR_PACKETS),
    }
}

fn probe(
    name: &'static str,
    needed: bool,
    outcome: Outcome,
    detail: String,
    remedy: &'static str,
) -> Probe {
    Probe { name, needed, outcome, detail, remedy }
}

fn yes_no(found: bool) -> Outcome {
    if found { Outcome::Yes } else { Outcome::No }
}

/// aya's probes give an error for every errno that is no answer: EPERM, that is.
fn unknown(name: &'static str, needed: bool, error: &dyn std::error::Error) -> Probe {
    probe(name, needed, Outcome::Unknown, super::first_line(error), NEEDS_CAPABILITY)
}

fn map(name: &'static str, kind: MapType) -> Probe {
    match is_map_supported(kind) {
        Ok(found) => probe(name, true, yes_no(found), String::new(), NEEDS_KERNEL),
        Err(error) => unknown(name, true, &error),
    }
}

/// The `CapEff` line of `/proc/PID/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Which capabilities loading takes was found by trying each subset on 6.18: creating a SOCKMAP
/// takes CAP_BPF and CAP_NET_ADMIN, reading a socket's fields in the program takes CAP_PERFMON.
fn capabilities(effective: Option<u64>) -> Vec<Probe> {
    let wanted =
        [("CAP_BPF", CAP_BPF), ("CAP_NET_ADMIN", CAP_NET_ADMIN), ("CAP_PERFMON", CAP_PERFMON)];
    let one = |(name, bit): (&'static str, u32)| {
        let has = |bit: u32| effective.map(|set| set >> bit & 1 == 1);
        // CAP_SYS_ADMIN stands in for the two that were split off from it (5.8).
        let covered = bit != CAP_NET_ADMIN && has(CAP_SYS_ADMIN) == Some(true);
        let outcome = match has(bit) {
            None => Outcome::Unknown,
            Some(found) => yes_no(found || covered),
        };
        let by = if covered && has(bit) == Some(false) { "by CAP_SYS_ADMIN" } else { "" };
        probe(name, true, outcome, by.into(), NEEDS_CAPABILITY)
    };
    wanted.map(one).into()
}

fn btf_fields() -> Probe {
    const REMEDY: &str =
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y (all large distributions have it)";
    let name = "kernel types (BTF)";
    match std::fs::read(BTF_PATH) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unknown(name, true, &error)
        }
        Err(error) => probe(name, true, Outcome::No, format!("{BTF_PATH}: {error}"), REMEDY),
        Ok(types) => match btf::socket_offsets(&types) {
            Ok(_) => probe(name, true, Outcome::Yes, String::new(), REMEDY),
            Err(error) => probe(name, true, Outcome::No, error.to_string(), REMEDY),
        },
    }
}

fn jit() -> Probe {
    let name = "BPF compiled to machine code (JIT)";
    let remedy = "sysctl net.core.bpf_jit_enable=1; without it the kernel path is slow";
    match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) => probe(name, false, yes_no(text.trim() != "0"), String::new(), remedy),
        Err(error) => probe(name, false, Outcome::Unknown, error.to_string(), remedy),
    }
}

/// Loading the object answers for mmapable arrays and for a verdict without a
/// parser at the same time; the self-test for all of it together.
fn object() -> Vec<Probe> {
    const MMAP: &str = "mmapable array, shared with BPF";
    const VERDICT: &str = "verdict program without a parser";
    const TEST: &str = "self-test";
    let loaded = Kernel::load(SLOTS, false, None).map(|loaded| verified(&loaded, SPLICE_PROGRAM));
    let (mmap, verdict) = match &loaded {
        Ok(_) => (Outcome::Yes, Outcome::Yes),
        // The maps are made first: a refusal says nothing about the mapping.
        Err(LoadError::Map(_)) => (Outcome::No, Outcome::Unknown),
        Err(LoadError::Refused(_)) => (Outcome::Unknown, Outcome::No),
        Err(_) => (Outcome::Unknown, Outcome::Unknown),
    };
    let detail = loaded.as_ref().map_or_else(ToString::to_string, Clone::clone);
    let remedy = if matches!(loaded, Err(LoadError::Forbidden(_))) {
        NEEDS_CAPABILITY
    } else {
        NEEDS_KERNEL
    };
    const REPORT: &str = "please report it, with this output and the kernel's version";
    let test_remedy = if loaded.is_ok() { REPORT } else { remedy };
    let test = match loaded {
        Err(_) => (Outcome::Unknown, "the object can't be loaded".into()),
        Ok(_) => match selftest::run() {
            Ok(took) => (Outcome::Yes, format!("passed in {} ms", took.as_millis())),
            Err(selftest::Failure::Load(error)) => (Outcome::Unknown, error.to_string()),
            Err(selftest::Failure::Wrong(what)) => (Outcome::No, what),
        },
    };
    vec![
        probe(MMAP, true, mmap, String::new(), remedy),
        probe(VERDICT, true, verdict, detail, remedy),
        probe(TEST, true, test.0, test.1, test_remedy),
    ]
}

/// Whether the kernel path would run with these findings.
#[must_use]
pub fn would_run(probes: &[Probe]) -> bool {
    probes.iter().all(|p| !p.needed || p.outcome == Outcome::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        let check = |set: Option<u64>, expected: [Outcome; 3]| {
            let found: Vec<_> = capabilities(set).iter().map(|p| p.outcome).collect();
            assert_eq!(found, expected, "{set:x?}");
        };
        use Outcome::{No, Unknown, Yes};
        check(None, [Unknown; 3]);
        check(Some(0), [No; 3]);
        check(Some(u64::MAX), [Yes; 3]);
        check(Some(1 << 39), [Yes, No, No]);
        check(Some(1 << 21), [Yes, No, Yes]);
        let status = "Name:\tx\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("CapEff: x"), None);
    }

    #[test]
    fn as_root_on_this_kernel_everything_is_there() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("!!! SKIPPED: probing needs root");
            return;
        }
        let probes = all();
        assert!(would_run(&probes), "{probes:#?}");
        assert!(probes.iter().all(|p| p.outcome == Outcome::Yes), "{probes:#?}");
        let counts = probes.iter().filter(|p| p.detail.ends_with(" instructions verified")).count();
        assert_eq!(counts, 2, "{probes:#?}");
    }

    #[test]
    fn one_needed_no_or_unknown_is_enough() {
        let one = |needed, outcome| probe("x", needed, outcome, String::new(), "");
        assert!(would_run(&[one(true, Outcome::Yes), one(false, Outcome::No)]));
        assert!(!would_run(&[one(true, Outcome::Yes), one(true, Outcome::No)]));
        assert!(!would_run(&[one(true, Outcome::Unknown)]));
    }
}
