//! Sink: the store's entrance for bytes whose digest and size are known beforehand.
//!
//! Layer 3 (effects). What was written before a kill stays in `.part-<hex>` and is hashed again on resume.
//! The part file is locked, so of two processes that want one blob the second waits and finds it done. Must
//! never leave a file under a blob's name that has not its digest and size.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::scratch::is_at;
use super::{Pieces, Store, StoreError, io_error, pieces};
use crate::digest::{Digest, Hasher};
use crate::pipe;

/// Takes one blob's bytes in order, from [`Sink::offset`] on.
pub struct Sink<'a> {
    store: &'a Store,
    expected: Digest,
    size: u64,
    part: PathBuf,
    file: File,
    hasher: Hasher,
    offset: u64,
    /// Whether there is a log of pieces beside the part.
    in_pieces: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn open(store: &'a Store, expected: Digest, size: u64) -> Result<Option<Self>, StoreError> {
        let part = store.blobs().join(format!(".part-{}", expected.hex()));
        loop {
            if store.contains(&expected, size)? {
                return Ok(None);
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&part)
                .map_err(io_error("create", &part))?;
            file.lock().map_err(io_error("lock", &part))?;
            // While we waited, the one before us may have finished and renamed this very file.
            if is_at(&file, &part) {
                let mut sink = Sink { store, expected, size, part, file, hasher: Hasher::new(), offset: 0, in_pieces: false };
                sink.take_up()?;
                return Ok(Some(sink));
            }
        }
    }

    /// Hashes what an earlier run left behind.
    fn take_up(&mut self) -> Result<(), StoreError> {
        let length = self.file.metadata().map_err(io_error("read", &self.part))?.len();
        if length > self.size {
            return self.restart();
        }
        let logged = pieces::logged(&self.part, length)?;
        self.in_pieces = logged.is_some();
        let end = logged.map_or(length, |done| done.prefix());
        let mut buffer = vec![0; pipe::CHUNK.min(length as usize + 1)];
        while self.offset < end {
            let wanted = usize::try_from(end - self.offset).unwrap_or(usize::MAX).min(buffer.len());
            let n = self.file.read(&mut buffer[..wanted]).map_err(io_error("read", &self.part))?;
            if n == 0 {
                break;
            }
            self.hashed(&buffer[..n]);
        }
        Ok(())
    }

    /// Counts bytes that are on the disk already.
    pub(super) fn hashed(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
    }

    fn forget_pieces(&mut self) -> Result<(), StoreError> {
        match std::mem::take(&mut self.in_pieces) {
            true => pieces::forget(&self.part),
            false => Ok(()),
        }
    }

    /// Whether bytes beyond [`Sink::offset`] may be there.
    pub fn has_pieces(&self) -> bool {
        self.in_pieces
    }

    /// Takes bytes out of order from now on; [`Sink::follow`] hashes them.
    pub fn pieces(&mut self) -> Result<Pieces, StoreError> {
        let pieces = Pieces::of(&self.part, &self.file, self.offset, self.size)?;
        self.in_pieces = true;
        Ok(pieces)
    }

    /// Bytes that are already there: the place from which to fetch.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes it wants in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest it wants.
    pub fn expected(&self) -> Digest {
        self.expected
    }

    /// The store it fills, for whoever must open it anew after a refusal.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// Forgets what is there and begins at the first byte, e.g. when a server ignores ranges.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(io_error("write", &self.part))?;
        // In this order: a log without its bytes names nothing.
        self.forget_pieces()?;
        self.file.seek(SeekFrom::Start(0)).map_err(io_error("write", &self.part))?;
        self.hasher = Hasher::new();
        self.offset = 0;
        Ok(())
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::Length`] as soon as there are more than expected.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let after = self.offset + bytes.len() as u64;
        if after > self.size {
            let found = after;
            self.restart()?;
            return Err(StoreError::Length { expected: self.size, found });
        }
        self.file.write_all(bytes).map_err(io_error("write", &self.part))?;
        self.hasher.update(bytes);
        self.offset = after;
        Ok(())
    }

    /// Checks size and digest and puts the blob in place. Short bytes stay for a resume; wrong ones go.
    pub fn finish(mut self) -> Result<(), StoreError> {
        if self.offset != self.size {
            return Err(StoreError::Length { expected: self.size, found: self.offset });
        }
        let found = std::mem::take(&mut self.hasher).finish();
        if found != self.expected {
            fs::remove_file(&self.part).map_err(io_error("remove", &self.part))?;
            self.forget_pieces()?;
            return Err(StoreError::Mismatch { expected: self.expected, found });
        }
        let rename = |place: &Path| fs::rename(&self.part, place).map_err(io_error("put in place", place));
        let put = self.store.put_in_place(&self.file, &self.part, &self.expected, self.size, rename);
        self.forget_pieces()?;
        put.inspect_err(|_| drop(fs::remove_file(&self.part)))
    }
}
