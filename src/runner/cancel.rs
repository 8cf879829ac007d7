//! Cancelling: the person's wish that a command under way end in order.
//!
//! Layer 3 (effects): signal handlers that set flags. While a command is watched the first Ctrl-C is a wish; at any
//! other time, and the second one always, a signal does what it does to any program. Must never be heeded where the
//! caller had the signal ignored.

#![allow(clippy::disallowed_methods, reason = "effects: asks which signals are ignored")]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether somebody wished it.
static ASKED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Whether a signal ends `pack` as it would any program.
static AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// From now on SIGINT and SIGTERM let a command that is watched end in order.
///
/// # Errors
/// Where the system takes no handler.
pub fn heed() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        if is_ignored(signal) {
            continue;
        }
        // In this order: the first one looks at what the others set.
        flag::register_conditional_default(signal, Arc::clone(&AT_ONCE))?;
        flag::register(signal, Arc::clone(&ASKED))?;
        flag::register(signal, Arc::clone(&AT_ONCE))?;
    }
    Ok(())
}

/// Whether the person wished that what is under way ends.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// As long as it is there, the first signal is a wish.
pub(super) struct Heeding;

impl Heeding {
    pub(super) fn begin() -> Self {
        if !asked() {
            AT_ONCE.store(false, Ordering::SeqCst);
        }
        Heeding
    }
}

impl Drop for Heeding {
    fn drop(&mut self) {
        AT_ONCE.store(true, Ordering::SeqCst);
    }
}

/// Whether this process was started with the signal ignored, as shells do for what runs in the background.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
