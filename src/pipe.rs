//! Pipe: one reader, several consumers, each on its own thread, over a ring of reused buffers.
//!
//! Layer 3 (effects). Hashing is the floor of everything `pack` does with large files, so reading, writing
//! and each hash get a thread of their own. Memory is bounded by the ring, whatever the size of the file.
//! Must never drop or reorder a chunk.

#![allow(clippy::disallowed_methods, reason = "effects: owns the pipeline threads")]

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

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

/// Reads `reader` to its end and hands every chunk to every consumer. Returns the consumers' results in the
/// order given and the number of bytes read.
///
/// # Errors
/// The reader's error, else the first consumer's error.
pub fn fan_out<'a, T: Send>(
    reader: &mut dyn Read,
    consumers: Vec<Box<dyn FnOnce(Chunks) -> io::Result<T> + Send + 'a>>,
) -> io::Result<(Vec<T>, u64)> {
    std::thread::scope(|scope| {
        let mut senders: Vec<SyncSender<(Arc<Vec<u8>>, usize)>> = Vec::new();
        let mut handles = Vec::new();
        for consumer in consumers {
            let (sender, receiver) = sync_channel(DEPTH);
            senders.push(sender);
            handles.push(scope.spawn(move || consumer(Chunks(receiver))));
        }
        let read = feed(reader, &senders);
        drop(senders);
        let mut results = Vec::new();
        let mut first_error = None;
        for handle in handles {
            match handle.join() {
                Ok(Ok(value)) => results.push(value),
                Ok(Err(error)) => first_error = first_error.or(Some(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match (read, first_error) {
            (Err(error), _) | (_, Some(error)) => Err(error),
            (Ok(count), None) => Ok((results, count)),
        }
    })
}

fn feed(reader: &mut dyn Read, senders: &[SyncSender<(Arc<Vec<u8>>, usize)>]) -> io::Result<u64> {
    let mut ring: Vec<Arc<Vec<u8>>> = Vec::new();
    let mut count = 0u64;
    loop {
        // A buffer that every consumer has let go of; a new one only while all are under way.
        let at = match ring.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some()) {
            Some(at) => at,
            None => {
                ring.push(Arc::new(vec![0; CHUNK]));
                ring.len() - 1
            }
        };
        let mut buffer = ring.swap_remove(at);
        let free = Arc::get_mut(&mut buffer).expect("chosen because no consumer holds it");
        let mut filled = 0;
        while filled < CHUNK {
            match reader.read(&mut free[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return Ok(count);
        }
        count += filled as u64;
        for sender in senders {
            // A consumer that has ended early did so with an error, which its join reports.
            if sender.send((Arc::clone(&buffer), filled)).is_err() {
                return Ok(count);
            }
        }
        ring.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, Hasher};

    #[test]
    fn every_consumer_sees_every_byte_in_order() {
        let data: Vec<u8> = (0..5 * CHUNK + 17).map(|n| (n % 251) as u8).collect();
        let hash = || -> Box<dyn FnOnce(Chunks) -> io::Result<Digest> + Send> {
            Box::new(|chunks| {
                let mut hasher = Hasher::new();
                chunks.each(|bytes| {
                    hasher.update(bytes);
                    Ok(())
                })?;
                Ok(hasher.finish())
            })
        };
        let (digests, count) = fan_out(&mut &data[..], vec![hash(), hash()]).unwrap();
        assert_eq!(count, data.len() as u64);
        assert!(digests.iter().all(|digest| *digest == Digest::of(&data)));
    }

    #[test]
    fn a_consumer_that_fails_ends_the_copy() {
        let result =
            fan_out::<()>(&mut io::repeat(1), vec![Box::new(|chunks: Chunks| chunks.each(|_| Err(io::Error::other("full"))))]);
        assert_eq!(result.unwrap_err().to_string(), "full");
    }
}
