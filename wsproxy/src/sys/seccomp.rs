//! A filter over system calls, seccomp(2), and what there is of Landlock.

use std::io;

/// Puts a filter in force in all threads (`SECCOMP_FILTER_FLAG_TSYNC`), for good; with `log` what
/// it refuses is in the kernel's log (`SECCOMP_FILTER_FLAG_LOG`). `steps` are the fields of
/// `struct sock_filter`: code, jump if true, jump if false, operand. Needs `no_new_privs`.
///
/// # Errors
/// What `seccomp(2)` says; `Other` where the kernel names a thread that can't have it.
pub fn filter_system_calls(steps: &[(u16, u8, u8, u32)], log: bool) -> io::Result<()> {
    let mut program: Vec<_> =
        steps.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let log = if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    let flags = libc::SECCOMP_FILTER_FLAG_TSYNC | log;
    // SAFETY: `program` and the steps that it points to outlive the call, which copies them and
    // checks each.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    match result {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!("thread {thread} has another filter"))),
    }
}

/// Whether the kernel takes such filters, seccomp(2).
#[must_use]
pub fn can_filter_system_calls() -> bool {
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: reads one word, which outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action)
    };
    result == 0
}

/// The version of Landlock that the kernel has, landlock_create_ruleset(2).
///
/// # Errors
/// `Unsupported` where there is none, or where it is not enabled.
pub fn landlock_version() -> io::Result<u32> {
    const VERSION: libc::c_long = 1;
    // SAFETY: with this flag the call takes no pointer, and makes nothing.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, VERSION) };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}
