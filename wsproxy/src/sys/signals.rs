//! Signals that have to wait.

use std::{io, mem::MaybeUninit, ptr};

/// Those that the running program has handlers for.
const OURS: [libc::c_int; 4] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGUSR1];

/// Holds SIGTERM, SIGINT, SIGHUP and SIGUSR1 back from this thread and those it starts; what comes
/// meanwhile is kept, once each.
///
/// # Errors
/// What `pthread_sigmask(3)` says.
pub fn hold() -> io::Result<()> {
    change(libc::SIG_BLOCK)
}

/// Lets them come to this thread, and with them what was kept.
///
/// # Errors
/// What `pthread_sigmask(3)` says.
pub fn let_come() -> io::Result<()> {
    change(libc::SIG_UNBLOCK)
}

fn change(how: libc::c_int) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` makes the set whole before anything reads it; the numbers are those of
    // signals; no old mask is asked for.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in OURS {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}
