//! The two system calls that have no safe form.
//!
//! Layer 3 (effects). Called only by the inner stages, which have one thread and share nothing.

#![allow(unsafe_code, reason = "unshare and close_range have no safe form")]

use std::io;

use rustix::thread::UnshareFlags;

/// Leaves namespaces that are shared with the parent.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: no flag given here splits the table of open files from another thread: the stages have one thread,
    // and CLONE_FILES is never asked for.
    unsafe { Ok(rustix::thread::unshare_unsafe(flags)?) }
}

/// Has every open file but the three standard ones closed when a program is started.
pub(super) fn close_on_exec() -> io::Result<()> {
    // SAFETY: sets a flag on this process's own open files; closes none of them now.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
