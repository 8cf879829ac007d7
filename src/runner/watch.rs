//! Watching a command: passes on what it says, and stops it at its limits.
//!
//! Layer 3 (effects). One loop, no threads: it sleeps until the command says something, ends, or a look at time,
//! memory or disk is due. Memory of its own is bounded, however much a command prints. Must never wait for a
//! stream to end: a command may close it, or leave it to a process that does not.

#![allow(clippy::disallowed_methods, reason = "effects: watches the clock and the disk")]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cancel::{self, Heeding};
use super::rooms::Rooms;
use super::{Console, Event, RunError, Stream, io_error};
use crate::invocation::Limits;
use crate::record::Ending;

/// Between two times at which the console is told what is used.
const TELL: Duration = Duration::from_secs(1);
/// Between two looks at memory: soon after the start, later more seldom.
const GLANCES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// Between two looks at the disk, at least; a walk that takes long is done more seldom.
const WALK: Duration = Duration::from_millis(100);
/// Part of the time that looking at the disk may take.
const SHARE: u32 = 20;
/// Bytes that are left free on the disk: a command that would take them is stopped.
const RESERVE: u64 = 256 << 20;

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
    /// Bytes of memory now, of all its processes.
    fn memory(&mut self) -> Option<u64>;
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
    let disk = Disk::new(rooms, limits)?;
    let (mut next_glance, mut next_walk, mut next_tell) = (begun, begun + WALK, begun + TELL);
    loop {
        let now = Instant::now();
        if now >= next_glance {
            let memory = subject.memory();
            // A command that ended between two looks was not seen.
            peak = peak.max(memory.filter(|memory| *memory > 0));
            let too_much = memory.zip(limits.memory).is_some_and(|(memory, most)| memory > most);
            if too_much && !subject.is_memory_held() && stop.is_none() {
                stop = Some(Stop { because: Ending::OutOfMemory, kill_at: now, killed: false });
            }
            next_glance = now + (now.duration_since(begun) / 4).clamp(GLANCES.0, GLANCES.1);
            if now >= next_tell {
                console(Event::Usage { seconds: (now - begun).as_secs_f64(), memory });
                next_tell = now + TELL;
            }
        }
        if now >= next_walk && stop.is_none() {
            if disk.is_over()? {
                stop = Some(Stop { because: Ending::OverQuota, kill_at: now, killed: false });
            }
            next_walk = Instant::now() + WALK.max(now.elapsed() * SHARE);
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
        let wake = next_glance.min(next_walk);
        let (spoke, ended) = wait(subject, streams, wake.saturating_duration_since(Instant::now()))?;
        if spoke {
            streams.pass_on(console);
        }
        if ended && let Some(ending) = subject.hear()? {
            // A file longer than is allowed ends its writer by this signal.
            let ending = if ending == (Ending::Signalled { signal: libc::SIGXFSZ }) { Ending::OverQuota } else { ending };
            // What was written last counts as well.
            let over = stop.is_none() && disk.is_over()?;
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

/// The disk that outputs and scratch are on.
struct Disk<'a> {
    rooms: &'a Rooms,
    limits: &'a Limits,
    /// Whether there was room enough at first to keep some.
    keeps_reserve: bool,
}

impl<'a> Disk<'a> {
    fn new(rooms: &'a Rooms, limits: &'a Limits) -> Result<Self, RunError> {
        let mut disk = Self { rooms, limits, keeps_reserve: false };
        disk.keeps_reserve = disk.free()? > 2 * RESERVE;
        Ok(disk)
    }

    fn free(&self) -> Result<u64, RunError> {
        let found = rustix::fs::statvfs(&self.rooms.tmp);
        let found = found.map_err(|error| io_error("ask for room on", &self.rooms.tmp)(error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn is_over(&self) -> Result<bool, RunError> {
        let outputs = usage(&self.rooms.out);
        let scratch = usage(&self.rooms.tmp);
        let over = outputs.allocated > self.limits.outputs
            || outputs.longest > self.limits.outputs
            || scratch.allocated > self.limits.scratch;
        Ok(over || (self.keeps_reserve && self.free()? < RESERVE))
    }
}

/// What a folder takes.
#[derive(Default)]
struct Usage {
    allocated: u64,
    longest: u64,
}

/// Walks a folder that may change meanwhile: what cannot be looked at is not counted.
fn usage(folder: &Path) -> Usage {
    let mut usage = Usage::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // A file with many names counts once for each: rather too much than too little.
            usage.allocated += meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
            } else {
                usage.longest = usage.longest.max(meta.len());
            }
        }
    }
    usage
}
