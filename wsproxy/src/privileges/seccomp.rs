//! Which system calls the process may make (seccomp(2)): those that it makes. Any other one is
//! answered as by a kernel that has none such (`ENOSYS`), for libraries know what to do then, and
//! the kernel's log says which it was (`audit: type=1326 ... syscall=N`). Nothing is killed: a call
//! that was forgotten here must not cost sessions.

use std::{collections::BTreeMap, env::consts::ARCH};

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::sys;

/// Calls that may be made with any arguments.
#[rustfmt::skip]
const ANY: &[c_long] = &[
    // Memory.
    libc::SYS_brk, libc::SYS_madvise, libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, and waiting.
    libc::SYS_exit, libc::SYS_exit_group, libc::SYS_futex, libc::SYS_get_robust_list,
    libc::SYS_getpid, libc::SYS_gettid, libc::SYS_membarrier, libc::SYS_prctl, libc::SYS_rseq,
    libc::SYS_sched_getaffinity, libc::SYS_sched_yield, libc::SYS_set_robust_list,
    libc::SYS_set_tid_address, libc::SYS_tgkill,
    // Signals.
    libc::SYS_restart_syscall, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_rt_sigtimedwait, libc::SYS_sigaltstack,
    // The clock, and what the process and the system are.
    libc::SYS_clock_getres, libc::SYS_clock_gettime, libc::SYS_clock_nanosleep,
    libc::SYS_getcpu, libc::SYS_getegid, libc::SYS_geteuid, libc::SYS_getgid,
    libc::SYS_getrandom, libc::SYS_getrusage, libc::SYS_gettimeofday, libc::SYS_getuid,
    libc::SYS_nanosleep, libc::SYS_prlimit64, libc::SYS_sysinfo, libc::SYS_uname,
    // Descriptors.
    libc::SYS_close, libc::SYS_close_range, libc::SYS_dup, libc::SYS_dup3, libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2, libc::SYS_eventfd2,
    libc::SYS_fcntl, libc::SYS_pipe2, libc::SYS_ppoll, libc::SYS_pread64, libc::SYS_preadv,
    libc::SYS_pselect6, libc::SYS_pwrite64, libc::SYS_pwritev, libc::SYS_read, libc::SYS_readv,
    libc::SYS_write, libc::SYS_writev,
    // Files.
    libc::SYS_faccessat, libc::SYS_faccessat2, libc::SYS_fchmod, libc::SYS_fchmodat,
    libc::SYS_fdatasync, libc::SYS_flock, libc::SYS_fstat, libc::SYS_fstatfs, libc::SYS_fsync,
    libc::SYS_ftruncate, libc::SYS_getcwd, libc::SYS_getdents64, libc::SYS_lseek,
    libc::SYS_mkdirat, libc::SYS_newfstatat, libc::SYS_openat, libc::SYS_openat2,
    libc::SYS_readlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_statfs,
    libc::SYS_statx, libc::SYS_unlinkat,
    // Sockets.
    libc::SYS_accept, libc::SYS_accept4, libc::SYS_bind, libc::SYS_connect, libc::SYS_getpeername,
    libc::SYS_getsockname, libc::SYS_getsockopt, libc::SYS_listen, libc::SYS_recvfrom,
    libc::SYS_recvmmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_sendmsg,
    libc::SYS_sendto, libc::SYS_setsockopt, libc::SYS_shutdown, libc::SYS_socketpair,
];

/// The same under the names that they had first, where the architecture still has those.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const OLD: &[c_long] = &[
    libc::SYS_access, libc::SYS_arch_prctl, libc::SYS_chmod, libc::SYS_dup2, libc::SYS_epoll_wait,
    libc::SYS_getdents, libc::SYS_getrlimit, libc::SYS_lstat, libc::SYS_mkdir, libc::SYS_open,
    libc::SYS_pipe, libc::SYS_poll, libc::SYS_readlink, libc::SYS_rename, libc::SYS_rmdir,
    libc::SYS_select, libc::SYS_stat, libc::SYS_time, libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[];

/// `SIOCGIFNAME`, `SIOCGIFINDEX` (`include/uapi/linux/sockios.h`).
const DEVICES: [u64; 2] = [0x8910, 0x8933];
/// `TCGETS2`, by which newer C libraries find out whether something is a terminal.
const TCGETS2: u64 = 0x802c_542a;

/// The answer to what is not allowed.
const MISSING: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u32);

/// Equal to one of these, in an argument of 32 bits.
fn one_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompRule>, BackendError> {
    let rule = |value: &u64| {
        let equal = SeccompCmpOp::Eq;
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, *value)?;
        SeccompRule::new(vec![condition])
    };
    values.iter().map(rule).collect()
}

/// The filter. With `bpf`, maps and programs that are open may be used, and attached.
fn filter(bpf: bool) -> Result<BpfProgram, BackendError> {
    let arch: TargetArch = ARCH.try_into()?;
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        ANY.iter().chain(OLD).map(|call| (*call, Vec::new())).collect();
    if bpf {
        rules.insert(libc::SYS_bpf, Vec::new());
    }
    // Threads, and no processes.
    let thread = libc::CLONE_THREAD as u64;
    let flags =
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![flags])?]);
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    rules.insert(libc::SYS_socket, one_of(0, &families.map(|family| family as u64))?);
    let [name, index] = DEVICES;
    let questions = [
        libc::FIONBIO,
        libc::FIOCLEX,
        libc::FIONREAD,
        libc::TIOCOUTQ,
        libc::TCGETS,
        libc::TIOCGWINSZ,
        TCGETS2,
        name,
        index,
    ];
    rules.insert(libc::SYS_ioctl, one_of(1, &questions)?);
    // `without_clone3` has its own answer to it.
    rules.insert(libc::SYS_clone3, Vec::new());
    SeccompFilter::new(rules, MISSING, SeccompAction::Allow, arch)?.try_into()
}

/// The C library falls back to `clone` where there is no `clone3`, whose flags no filter can see:
/// at each thread that begins, and so in a filter of its own, which logs nothing.
fn without_clone3() -> Result<BpfProgram, BackendError> {
    let rules = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    SeccompFilter::new(rules, SeccompAction::Allow, MISSING, ARCH.try_into()?)?.try_into()
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seccomp {
    /// In force.
    On,
    /// The configuration does not want it.
    Off,
    /// There is none here.
    Missing(String),
}

impl Seccomp {
    /// One word, and the reason where there is one.
    pub(super) fn text(&self) -> String {
        match self {
            Self::On => "on".to_owned(),
            Self::Off => "off".to_owned(),
            Self::Missing(why) => format!("missing: {why}"),
        }
    }
}

/// Puts the filter in force in all threads, as far as it is possible here.
pub(super) fn enforce(bpf: bool) -> Seccomp {
    // The quiet one first: the other one has no seccomp(2).
    for (program, log) in [(without_clone3(), false), (filter(bpf), true)] {
        let steps: Vec<_> = match program {
            Ok(program) => program.iter().map(|s| (s.code, s.jt, s.jf, s.k)).collect(),
            // Another architecture than those that the filter knows.
            Err(error) => return Seccomp::Missing(error.to_string()),
        };
        if let Err(error) = sys::filter_system_calls(&steps, log) {
            return Seccomp::Missing(error.to_string());
        }
    }
    Seccomp::On
}

/// Whether this kernel takes filters.
pub(super) fn is_offered() -> bool {
    sys::can_filter_system_calls()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_fits_into_the_kernel() {
        for bpf in [false, true] {
            let steps = filter(bpf).unwrap().len();
            // `BPF_MAXINSNS`.
            assert!((100..4_096).contains(&steps), "{steps}");
        }
        assert!(is_offered());
    }
}
