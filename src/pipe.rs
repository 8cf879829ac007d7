//! Pipe: one reader, several consumers, each on its own thread, over a ring of reused buffers.
//!
//! Layer 3 (effects). Hashing is the floor of everything `pack` does with large files, so reading, writing
//! and each hash get a thread of their own. Memory is bounded by the ring, whatever the size of the file.
//! Must never drop or reorder a chunk.

#![allow(clippy::disallowed_methods, reason = "effects: owns the pipeline threads")]

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::digest::{Digest, Hasher};

/// Bytes a chunk holds at most.
pub const CHUNK: usize = 1 << 20;
/// Chunks under way to one consumer.
const DEPTH: usize = 8;

/// A consumer's end: the chunks in order, until the reader ends.
pub struct Chunks(Receiver<(Arc<Vec<u8>>, usize)>);

impl Chunks {
    /// Calls `f` with each chunk; the first error ends it and, with it, the whole copy.
    pub fn each(self, mut f: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        for (buffer, length) in self.0 {
            f(&buffer[..length])?;
        }
        Ok(())
    }
}

/// One consumer: runs on its own thread and returns when the chunks end.
pub type Consumer<'a, T> = Box<dyn FnOnce(Chunks) -> io::Result<T> + Send + 'a>;

/// The writing end: what is written reaches every consumer in order, in chunks of [`CHUNK`] bytes.
pub struct Tee {
    senders: Vec<SyncSender<(Arc<Vec<u8>>, usize)>>,
    ring: Vec<Arc<Vec<u8>>>,
    current: Arc<Vec<u8>>,
    filled: usize,
    count: u64,
}

impl Tee {
    /// Bytes written so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads to the reader's end without a copy in between.
    pub fn fill_from(&mut self, reader: &mut dyn Read) -> io::Result<u64> {
        let before = self.count;
        loop {
            let filled = self.filled;
            match reader.read(&mut self.free()[filled..]) {
                Ok(0) => return Ok(self.count - before),
                Ok(n) => self.advance(n)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn free(&mut self) -> &mut [u8] {
        Arc::get_mut(&mut self.current).expect("the current buffer has not been sent yet")
    }

    fn advance(&mut self, n: usize) -> io::Result<()> {
        self.filled += n;
        self.count += n as u64;
        if self.filled == CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> io::Result<()> {
        for sender in &self.senders {
            // A consumer that ended early did so with an error, which its join reports.
            let sent = sender.send((Arc::clone(&self.current), self.filled));
            sent.map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "a consumer ended early"))?;
        }
        // A buffer that every consumer has let go of; a new one only while all are under way.
        let free = self.ring.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some());
        let next = match free {
            Some(at) => self.ring.swap_remove(at),
            None => Arc::new(vec![0; CHUNK]),
        };
        self.ring.push(std::mem::replace(&mut self.current, next));
        self.filled = 0;
        Ok(())
    }
}

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.filled);
        let filled = self.filled;
        self.free()[filled..filled + n].copy_from_slice(&bytes[..n]);
        self.advance(n)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `produce` here and each consumer on its own thread. Returns what `produce` returned and the
/// consumers' results in the order given.
///
/// # Errors
/// The first consumer's error, else the producer's: a consumer that fails makes the producer's write fail.
pub fn tee<'a, R, E: From<io::Error>, T: Send>(
    consumers: Vec<Consumer<'a, T>>,
    produce: impl FnOnce(&mut Tee) -> Result<R, E>,
) -> Result<(R, Vec<T>), E> {
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        let mut handles = Vec::new();
        for consumer in consumers {
            let (sender, receiver) = sync_channel(DEPTH);
            senders.push(sender);
            handles.push(scope.spawn(move || consumer(Chunks(receiver))));
        }
        let mut tee = Tee { senders, ring: Vec::new(), current: Arc::new(vec![0; CHUNK]), filled: 0, count: 0 };
        let mut produced = produce(&mut tee);
        if produced.is_ok()
            && tee.filled > 0
            && let Err(error) = tee.send()
        {
            produced = Err(error.into());
        }
        drop(tee);
        let mut results = Vec::new();
        let mut first_error = None;
        for handle in handles {
            match handle.join() {
                Ok(Ok(value)) => results.push(value),
                Ok(Err(error)) => first_error = first_error.or(Some(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match (produced, first_error) {
            (_, Some(error)) => Err(error.into()),
            (Err(error), None) => Err(error),
            (Ok(value), None) => Ok((value, results)),
        }
    })
}

/// Reads `reader` to its end and hands every chunk to every consumer. Returns the consumers' results and the
/// number of bytes read.
pub fn fan_out<'a, T: Send>(reader: &mut dyn Read, consumers: Vec<Consumer<'a, T>>) -> io::Result<(Vec<T>, u64)> {
    let (count, results) = tee(consumers, |tee| tee.fill_from(reader))?;
    Ok((results, count))
}

/// A consumer that hashes.
pub fn hashing<'a>() -> Consumer<'a, Option<Digest>> {
    Box::new(|chunks| {
        let mut hasher = Hasher::new();
        chunks.each(|bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        Ok(Some(hasher.finish()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_sees_every_byte_in_order() {
        let data: Vec<u8> = (0..5 * CHUNK + 17).map(|n| (n % 251) as u8).collect();
        let (digests, count) = fan_out(&mut &data[..], vec![hashing(), hashing()]).unwrap();
        assert_eq!(count, data.len() as u64);
        assert!(digests.iter().all(|digest| *digest == Some(Digest::of(&data))));
    }

    #[test]
    fn a_consumer_that_fails_ends_the_copy() {
        let result =
            fan_out::<()>(&mut io::repeat(1), vec![Box::new(|chunks: Chunks| chunks.each(|_| Err(io::Error::other("full"))))]);
        assert_eq!(result.unwrap_err().to_string(), "full");
    }
}
