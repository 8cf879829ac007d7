//! Pieces: bytes of one blob that come out of order, from several connections at once.
//!
//! Layer 3 (effects). Each piece is written at its place in the part file, and only then does a line
//! `<first> <end>` follow in `.part-<hex>.ranges` beside it: what the log names is there, so a killed download
//! goes on where it was. The hash follows the bytes that have none missing before them. Must never name a
//! byte that was not written; whether the bytes are right, the sink alone says.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::sink::Sink;
use super::{StoreError, io_error};
use crate::pipe;

/// A log is a few lines a megabyte; a longer one is not ours.
const LOG_CAP: u64 = 64 << 20;
/// Bytes that come between two times that the disk is asked to take them.
const WRITE_BACK: u64 = 256 << 20;

/// The part of a sink that several threads write to.
pub struct Pieces {
    path: PathBuf,
    file: File,
    log: File,
    size: u64,
    state: Mutex<State>,
    grown: Condvar,
}

struct State {
    done: Done,
    closed: bool,
}

/// Which bytes are there: first to end, disjoint, not touching.
#[derive(Default, Clone, PartialEq, Eq, Debug)]
pub(super) struct Done(BTreeMap<u64, u64>);

impl Done {
    fn add(&mut self, mut first: u64, mut end: u64) {
        if first >= end {
            return;
        }
        let touching: Vec<u64> = self.0.range(..=end).rev().take_while(|(_, e)| **e >= first).map(|(f, _)| *f).collect();
        for at in touching {
            if let Some(other) = self.0.remove(&at) {
                first = first.min(at);
                end = end.max(other);
            }
        }
        self.0.insert(first, end);
    }

    /// The end of what begins at the first byte.
    pub fn prefix(&self) -> u64 {
        self.0.get(&0).copied().unwrap_or(0)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(first, end)| end - first).sum()
    }

    /// What a log says, as far as a file of so many bytes can hold it.
    fn read(text: &str, length: u64) -> Self {
        let mut done = Self::default();
        // A line that was being written when the process ended has no end.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let Some((Ok(first), Ok(end))) = line.split_once(' ').map(|(a, b)| (a.parse(), b.parse::<u64>())) else { continue };
            done.add(first, end.min(length));
        }
        done
    }

    /// What is missing of `size` bytes, in pieces of at most `most`.
    fn missing(&self, size: u64, most: u64) -> Vec<(u64, u64)> {
        let mut holes = Vec::new();
        let mut at = 0;
        for (first, end) in self.0.iter().map(|(f, e)| (*f, *e)).chain([(size, size)]) {
            while at < first {
                let next = first.min(at.saturating_add(most));
                holes.push((at, next));
                at = next;
            }
            at = at.max(end);
        }
        holes
    }
}

/// Where the log of a part file lies.
pub(super) fn log_of(part: &Path) -> PathBuf {
    let mut name = part.as_os_str().to_owned();
    name.push(".ranges");
    name.into()
}

/// What the log beside a part file says is there; `None` where there is no log.
pub(super) fn logged(part: &Path, length: u64) -> Result<Option<Done>, StoreError> {
    let path = log_of(part);
    let mut text = String::new();
    match File::open(&path) {
        Ok(file) => match file.take(LOG_CAP).read_to_string(&mut text) {
            Ok(_) => Ok(Some(Done::read(&text, length))),
            // Bytes that are no text were not written by us: nothing is known to be there.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Ok(Some(Done::default())),
            Err(error) => Err(io_error("read", &path)(error)),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("open", &path)(error)),
    }
}

/// Removes the log of a part file that is read in order from now on.
pub(super) fn forget(part: &Path) -> Result<(), StoreError> {
    let path = log_of(part);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
        _ => Ok(()),
    }
}

impl Pieces {
    /// Begins to take pieces where a sink stands; the log is there before the first of them.
    pub(super) fn of(part: &Path, file: &File, offset: u64, size: u64) -> Result<Self, StoreError> {
        let length = file.metadata().map_err(io_error("read", part))?.len();
        let mut done = logged(part, length)?.unwrap_or_default();
        done.add(0, offset);
        let path = log_of(part);
        // Written anew: an old one may be long, or end in half a line.
        let text: String = done.0.iter().map(|(first, end)| format!("{first} {end}\n")).collect();
        let fresh = path.with_extension("ranges-new");
        let written = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(io_error("write", &path))?;
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let log = OpenOptions::new().append(true).custom_flags(no_link).open(&path).map_err(io_error("open", &path))?;
        let file = file.try_clone().map_err(io_error("open", part))?;
        let state = Mutex::new(State { done, closed: false });
        Ok(Self { path: part.to_owned(), file, log, size, state, grown: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is missing, in order, in pieces of at most `most` bytes: first and end of each.
    pub fn missing(&self, most: u64) -> Vec<(u64, u64)> {
        self.state().done.missing(self.size, most.max(1))
    }

    /// Bytes that are there.
    pub fn there(&self) -> u64 {
        self.state().done.bytes()
    }

    /// Takes bytes at their place.
    ///
    /// # Errors
    /// [`StoreError::Length`] beyond the blob's end.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = at + bytes.len() as u64;
        if end > self.size {
            return Err(StoreError::Length { expected: self.size, found: end });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.write_all_at(bytes, at).map_err(io_error("write", &self.path))?;
        (&self.log).write_all(format!("{at} {end}\n").as_bytes()).map_err(io_error("write", &log_of(&self.path)))?;
        self.state().done.add(at, end);
        self.grown.notify_all();
        Ok(())
    }

    /// No more bytes come.
    pub fn close(&self) {
        self.state().closed = true;
        self.grown.notify_all();
    }

    /// Sends to the disk what has come, now and then, until no more comes: what is left for the end is then little.
    pub fn write_back(&self) -> Result<(), StoreError> {
        let mut written = self.there();
        loop {
            let mut state = self.state();
            while !state.closed && state.done.bytes() < written + WRITE_BACK {
                state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed {
                return Ok(());
            }
            written = state.done.bytes();
            drop(state);
            self.file.sync_data().map_err(io_error("write", &self.path))?;
        }
    }

    /// Waits until more than `offset` bytes have none missing before them; `None` once nothing more comes.
    fn beyond(&self, offset: u64) -> Option<u64> {
        let mut state = self.state();
        loop {
            let prefix = state.done.prefix();
            if prefix > offset {
                return Some(prefix);
            }
            if state.closed {
                return None;
            }
            state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Sink<'_> {
    /// Hashes what comes, as far as nothing before it is missing, until no more comes.
    pub fn follow(&mut self, pieces: &Pieces) -> Result<(), StoreError> {
        let mut buffer = vec![0; pipe::CHUNK];
        while self.offset() < self.size() {
            let Some(end) = pieces.beyond(self.offset()) else { break };
            while self.offset() < end {
                let n = usize::try_from(end - self.offset()).unwrap_or(usize::MAX).min(buffer.len());
                let read = pieces.file.read_exact_at(&mut buffer[..n], self.offset());
                read.map_err(io_error("read", &pieces.path))?;
                self.hashed(&buffer[..n]);
            }
        }
        let mut file = &pieces.file;
        file.seek(SeekFrom::Start(self.offset())).map(drop).map_err(io_error("read", &pieces.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(ranges: &[(u64, u64)]) -> Done {
        let mut done = Done::default();
        ranges.iter().for_each(|(first, end)| done.add(*first, *end));
        done
    }

    #[test]
    fn ranges_grow_together() {
        assert_eq!(done(&[(0, 4), (8, 9), (4, 8)]), done(&[(0, 9)]));
        assert_eq!(done(&[(5, 7), (0, 10)]), done(&[(0, 10)]));
        assert_eq!(done(&[(3, 3)]), done(&[]));
        assert_eq!(done(&[(4, 8), (0, 2)]).prefix(), 2);
        assert_eq!(done(&[(4, 8)]).prefix(), 0);
        assert_eq!(done(&[(2, 4), (6, 7)]).missing(10, 2), [(0, 2), (4, 6), (7, 9), (9, 10)]);
        assert_eq!(done(&[(0, 10)]).missing(10, 2), []);
    }

    #[test]
    fn a_log_is_believed_as_far_as_it_can_be() {
        assert_eq!(Done::read("0 4\n6 8\n8 1", 10), done(&[(0, 4), (6, 8)]));
        assert_eq!(Done::read("0 4\nx\n\n5 3\n6 99\n-1 4\n", 7), done(&[(0, 4), (6, 7)]));
    }
}
