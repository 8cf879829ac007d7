//! Watching a command: passes on what it says, and stops it at its limits.
//!
//! Layer 3 (effects). One loop, no threads: it sleeps until the command says something, ends, or a look at time,
//! memory or disk is due. Memory of its own is bounded, however much a command prints. Must never wait for a
//! stream to end: a command may close it, or leave it to a process that does not.

#![allow(clippy::disallowed_methods, reason = "effects: watches the clock and the disk")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Stat};

use super::cancel::{self, Heeding};
use super::rooms::Rooms;
use super::{Console, Event, RunError, Stream, io_error};
use crate::folders::Walk;
use crate::invocation::Limits;
use crate::record::Ending;

/// Between two times at which the console is told what is used.
const TELL: Duration = Duration::from_secs(1);
/// Between two looks at memory: soon after the start, later more seldom.
const GLANCES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Between two walks through what was written, at least.
const WALK: Duration = Duration::from_millis(100);
/// Entries that are looked at in one go, before streams, time and memory have their turn again.
const PART: u64 = 2000;
/// Part of the time that walking may take, and that exact looks at memory may.
const SHARE: u32 = 20;
const EXACT_SHARE: u32 = 4;
/// Bytes that are left free on the disk: a command that would take them is stopped.
const RESERVE: u64 = 256 << 20;
/// The same of files.
const RESERVE_FILES: u64 = 1 << 16;

/// A command that can be watched.
pub(super) trait Subject {
    /// Readable when [`Subject::hear`] has something to hear.
    fn signal(&self) -> BorrowedFd<'_>;
    /// How it ended, if it has, with everything it started.
    fn hear(&mut self) -> Result<Option<Ending>, RunError>;
    /// Asks it to end.
    fn terminate(&mut self);
    /// Ends it and everything it started.
    fn kill(&mut self);
    /// Bytes of memory now, of all its processes; may be too many where the kernel does not hold them.
    fn memory(&mut self) -> Option<u64>;
    /// Not too many, and not found as quickly.
    fn memory_exactly(&mut self) -> Option<u64>;
    /// Whether the kernel holds its memory limit.
    fn is_memory_held(&self) -> bool;
}

/// What a command says.
pub(super) struct Streams {
    open: Vec<(Stream, File)>,
}

impl Streams {
    /// Of a child whose streams are pipes.
    pub(super) fn of(child: &mut Child) -> io::Result<Self> {
        let out = child.stdout.take().map(|pipe| (Stream::Out, File::from(std::os::fd::OwnedFd::from(pipe))));
        let err = child.stderr.take().map(|pipe| (Stream::Err, File::from(std::os::fd::OwnedFd::from(pipe))));
        let open: Vec<_> = out.into_iter().chain(err).collect();
        for (_, file) in &open {
            rustix::fs::fcntl_setfl(file, rustix::fs::OFlags::NONBLOCK)?;
        }
        Ok(Self { open })
    }

    /// Passes on one piece of each stream that has one. A stream that ended is let go of.
    fn pass_on(&mut self, console: Console) -> bool {
        let mut buffer = [0; 1 << 16];
        let mut any = false;
        self.open.retain_mut(|(stream, file)| match file.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => {
                any = true;
                console(Event::Said(*stream, &buffer[..n]));
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        });
        any
    }

    /// Passes on what is left of a command that is gone.
    pub(super) fn drain(&mut self, console: Console) {
        while self.pass_on(console) {}
    }
}

/// Why a command is being stopped.
struct Stop {
    because: Ending,
    kill_at: Instant,
    killed: bool,
}

/// Watches a command to its end: how it ended, and the largest memory that was seen.
pub(super) fn watch(
    subject: &mut dyn Subject,
    streams: &mut Streams,
    limits: &Limits,
    rooms: &Rooms,
    console: Console,
) -> Result<(Ending, Option<u64>), RunError> {
    let begun = Instant::now();
    let _heeding = Heeding::begin();
    let mut peak: Option<u64> = None;
    let mut stop: Option<Stop> = None;
    let mut disk = Disk::new(rooms, limits)?;
    let (mut next_glance, mut next_walk, mut next_tell) = (begun, begun + WALK, begun + TELL);
    let (mut next_exact, mut exact) = (begun, None);
    loop {
        let now = Instant::now();
        if now >= next_glance {
            let mut memory = subject.memory();
            let is_too_much = |memory: Option<u64>| memory.zip(limits.memory).is_some_and(|(memory, most)| memory > most);
            if is_too_much(memory) && !subject.is_memory_held() {
                if now >= next_exact {
                    exact = subject.memory_exactly();
                    next_exact = Instant::now() + now.elapsed() * EXACT_SHARE;
                }
                memory = exact;
                if is_too_much(memory) && stop.is_none() {
                    stop = Some(Stop { because: Ending::OutOfMemory, kill_at: now, killed: false });
                }
            }
            // A command that ended between two looks was not seen.
            peak = peak.max(memory.filter(|memory| *memory > 0));
            if stop.is_none() && disk.is_full()? {
                stop = Some(Stop { because: Ending::OverQuota, kill_at: now, killed: false });
            }
            next_glance = now + (now.duration_since(begun) / 4).clamp(GLANCES.0, GLANCES.1);
            if now >= next_tell {
                console(Event::Usage { seconds: (now - begun).as_secs_f64(), memory });
                next_tell = now + TELL;
            }
        }
        if now >= next_walk && stop.is_none() {
            let looked = disk.look();
            if looked == Looked::Over {
                stop = Some(Stop { because: Ending::OverQuota, kill_at: now, killed: false });
            }
            let pause = if looked == Looked::InPart { Duration::ZERO } else { WALK };
            next_walk = Instant::now() + pause.max(now.elapsed() * SHARE);
        }
        if cancel::asked() && stop.is_none() {
            subject.terminate();
            stop = Some(Stop { because: Ending::Cancelled, kill_at: now + limits.grace, killed: false });
        }
        let late = limits.wall.is_some_and(|wall| now - begun >= wall);
        if late && stop.is_none() {
            subject.terminate();
            stop = Some(Stop { because: Ending::TimedOut, kill_at: now + limits.grace, killed: false });
        }
        if let Some(stop) = stop.as_mut().filter(|stop| !stop.killed && now >= stop.kill_at) {
            subject.kill();
            stop.killed = true;
        }
        let wake = match &stop {
            // Nothing is walked through any more.
            Some(stop) if stop.killed => next_glance,
            Some(stop) => next_glance.min(stop.kill_at),
            None => next_glance.min(next_walk),
        };
        let (spoke, ended) = wait(subject, streams, wake.saturating_duration_since(Instant::now()))?;
        if spoke {
            streams.pass_on(console);
        }
        if ended && let Some(ending) = subject.hear()? {
            // A file longer than is allowed ends its writer by this signal.
            let ending = if ending == (Ending::Signalled { signal: libc::SIGXFSZ }) { Ending::OverQuota } else { ending };
            // What was written last counts as well.
            let over = stop.is_none() && (disk.is_full()? || disk.look_at_all() == Looked::Over);
            let ending = stop.map_or(if over { Ending::OverQuota } else { ending }, |stop| stop.because);
            // The kernel was quicker than the last glance.
            let peak = if ending == Ending::OutOfMemory { peak.max(limits.memory) } else { peak };
            return Ok((ending, peak));
        }
    }
}

/// Sleeps until a stream or the command itself has something to say: which of the two did.
fn wait(subject: &dyn Subject, streams: &Streams, longest: Duration) -> Result<(bool, bool), RunError> {
    let mut fds = vec![PollFd::from_borrowed_fd(subject.signal(), PollFlags::IN)];
    fds.extend(streams.open.iter().map(|(_, file)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)));
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(io_error("watch", Path::new("the command"))(error.into())),
    }
    let spoke = fds[1..].iter().any(|fd| !fd.revents().is_empty());
    Ok((spoke, !fds[0].revents().is_empty()))
}

/// The disk that outputs and scratch are on, and what was written there.
struct Disk<'a> {
    rooms: &'a Rooms,
    limits: &'a Limits,
    /// Whether there was room enough at first to keep some: bytes, files.
    keeps_reserve: (bool, bool),
    pass: Pass,
}

/// One pass through outputs and scratch.
#[derive(Default)]
struct Pass {
    outputs: Usage,
    scratch: Usage,
    is_at_scratch: bool,
    walk: Option<Walk>,
}

/// What a folder takes.
#[derive(Default)]
struct Usage {
    allocated: u64,
    longest: u64,
    entries: u64,
}

/// What a look at what was written found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Looked {
    /// More than there may be.
    Over,
    /// There is more to look at.
    InPart,
    /// Everything was looked at, and may be.
    Well,
}

impl<'a> Disk<'a> {
    fn new(rooms: &'a Rooms, limits: &'a Limits) -> Result<Self, RunError> {
        let mut disk = Self { rooms, limits, keeps_reserve: (false, false), pass: Pass::default() };
        let (bytes, files) = disk.free()?;
        // A file system that does not count files says that it has none.
        disk.keeps_reserve = (bytes > 2 * RESERVE, files > 2 * RESERVE_FILES);
        Ok(disk)
    }

    /// Bytes and files that there is room for.
    fn free(&self) -> Result<(u64, u64), RunError> {
        let found = rustix::fs::statvfs(&self.rooms.tmp);
        let found = found.map_err(|error| io_error("ask for room on", &self.rooms.tmp)(error.into()))?;
        Ok((found.f_bavail.saturating_mul(found.f_frsize), found.f_favail))
    }

    /// Whether what is to be left of the disk is being taken.
    fn is_full(&self) -> Result<bool, RunError> {
        let (bytes, files) = self.free()?;
        Ok((self.keeps_reserve.0 && bytes < RESERVE) || (self.keeps_reserve.1 && files < RESERVE_FILES))
    }

    /// Looks at the next part. What may change meanwhile and cannot be looked at is not counted.
    fn look(&mut self) -> Looked {
        loop {
            let pass = &mut self.pass;
            let (folder, usage) = match pass.is_at_scratch {
                false => (&self.rooms.out, &mut pass.outputs),
                true => (&self.rooms.tmp, &mut pass.scratch),
            };
            if pass.walk.is_none() {
                pass.walk = Walk::begin(folder).ok();
            }
            let mut count = |_: BorrowedFd<'_>, _: &CStr, stat: &Stat| {
                // A file with many names counts once for each: rather too much than too little.
                usage.allocated += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
                usage.entries += 1;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    usage.longest = usage.longest.max(u64::try_from(stat.st_size).unwrap_or(0));
                }
            };
            let more = pass.walk.as_mut().is_some_and(|walk| walk.look(PART, &mut count));
            let too_deep = pass.walk.as_ref().is_some_and(Walk::is_too_deep);
            if too_deep || pass.is_over(self.limits) {
                return Looked::Over;
            }
            if more {
                return Looked::InPart;
            }
            pass.walk = None;
            if pass.is_at_scratch {
                self.pass = Pass::default();
                return Looked::Well;
            }
            pass.is_at_scratch = true;
        }
    }

    /// Looks at everything from the beginning.
    fn look_at_all(&mut self) -> Looked {
        self.pass = Pass::default();
        loop {
            match self.look() {
                Looked::InPart => {}
                looked => return looked,
            }
        }
    }
}

impl Pass {
    fn is_over(&self, limits: &Limits) -> bool {
        let Self { outputs, scratch, .. } = self;
        outputs.allocated > limits.outputs
            || outputs.longest > limits.outputs
            || scratch.allocated > limits.scratch
            || outputs.entries + scratch.entries > limits.files
    }
}
