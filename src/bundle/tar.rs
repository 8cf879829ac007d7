//! The tar of a bundle: what must stand there is known beforehand, so each block is compared.
//!
//! Layer 3 (effects), over any reader. A header that is not the expected one is described and never obeyed:
//! there is no code here that takes a name, a link or a type from a tar.

use std::io::{self, Read, Seek, Write};

use ::tar::{EntryType, Header};

use super::{BundleError, INDEX, Index, MAX_INDEX, Member, at_most, shown};
use crate::layer::header_of;
use crate::path::ImagePath;

const BLOCK: u64 = 512;
/// Permission bits of every member.
const MODE: u32 = 0o644;

/// Header bytes of a member.
pub(super) fn head(path: &ImagePath, size: u64) -> Vec<u8> {
    header_of(path, MODE, size)
}

/// Zero bytes after a member's content.
pub(super) fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK) - size
}

/// The two blocks that end a tar.
pub(super) const END: [u8; 1024] = [0; 1024];

fn index_path() -> ImagePath {
    ImagePath::new(INDEX).expect("a constant")
}

/// Writes one member.
pub(super) fn put<W: Write>(out: &mut W, path: &ImagePath, size: u64, data: &mut dyn Read) -> io::Result<()> {
    out.write_all(&head(path, size))?;
    let copied = io::copy(&mut data.take(size), out)?;
    if copied != size || data.read(&mut [0])? != 0 {
        let more = if copied == size { "more" } else { "fewer" };
        return Err(io::Error::other(format!("expected {size} bytes for `{path}`, found {more}")));
    }
    out.write_all(&END[..padding(size) as usize])
}

/// Writes the index.
pub(super) fn put_index<W: Write>(out: &mut W, index: &Index) -> io::Result<()> {
    let text = index.text();
    put(out, &index_path(), text.len() as u64, &mut text.as_slice())
}

/// Reads a bundle from its first byte.
pub(super) struct Walk<R> {
    inner: R,
}

impl<R: Read + Seek> Walk<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner }
    }

    fn block(&mut self, most: usize) -> Result<Vec<u8>, BundleError> {
        let mut bytes = vec![0; most];
        let mut filled = 0;
        while filled < most {
            match self.inner.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(BundleError::Io { action: "read", path: "the bundle".into(), source }),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The index, which must come first.
    pub(super) fn index(&mut self) -> Result<Index, BundleError> {
        let found = self.block(BLOCK as usize)?;
        let header: &[u8; BLOCK as usize] = found.as_slice().try_into().map_err(|_| BundleError::NotABundle)?;
        let header = Header::from_byte_slice(header);
        if *header.path_bytes() != *INDEX.as_bytes() {
            return Err(BundleError::NotABundle);
        }
        let size = header.size().map_err(|_| BundleError::NotABundle)?;
        at_most("size of the index", size, MAX_INDEX)?;
        if head(&index_path(), size) != found {
            return Err(differs(&format!("`{INDEX}` as a bundle has it"), &found));
        }
        let text = self.block(size as usize)?;
        if (text.len() as u64) < size {
            return Err(BundleError::Short { expected: BLOCK + size, found: BLOCK + text.len() as u64 });
        }
        let index = Index::parse(&text)?;
        self.zeros(padding(size), INDEX)?;
        Ok(index)
    }

    /// Bytes of the whole tar, by its index.
    pub(super) fn length(index: &Index) -> u64 {
        let whole = |head: u64, size: u64| head + size + padding(size);
        let text = index.text().len() as u64;
        let members = index.members().map(|member| whole(head(&member.path, member.size).len() as u64, member.size));
        whole(BLOCK, text) + members.sum::<u64>() + END.len() as u64
    }

    /// Compares the header of a member with what stands there.
    pub(super) fn header(&mut self, member: &Member) -> Result<(), BundleError> {
        let expected = head(&member.path, member.size);
        let mut found = self.block(BLOCK as usize)?;
        if found != expected[..BLOCK as usize] {
            return Err(differs(&format!("`{}` of {} bytes", member.path, member.size), &found));
        }
        found = self.block(expected.len() - BLOCK as usize)?;
        if found != expected[BLOCK as usize..] {
            return Err(differs(&format!("`{}` of {} bytes", member.path, member.size), &[]));
        }
        Ok(())
    }

    /// Hands on a member's content, piece by piece, and compares what fills its last block.
    pub(super) fn content(
        &mut self,
        member: &Member,
        mut each: impl FnMut(&[u8]) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        let mut buffer = vec![0; (256 << 10).min(member.size as usize)];
        let mut left = member.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = match self.inner.read(&mut buffer[..most]) {
                Ok(0) => return Err(BundleError::Short { expected: member.size, found: member.size - left }),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(BundleError::Io { action: "read", path: "the bundle".into(), source }),
            };
            each(&buffer[..n])?;
            left -= n as u64;
        }
        self.zeros(padding(member.size), member.path.as_str())
    }

    /// Goes past a member's content.
    pub(super) fn skip(&mut self, member: &Member) -> Result<(), BundleError> {
        let by = i64::try_from(member.size).map_err(|_| BundleError::Index("a size is too large".into()))?;
        let skipped = self.inner.seek_relative(by);
        skipped.map_err(|source| BundleError::Io { action: "read", path: "the bundle".into(), source })?;
        self.zeros(padding(member.size), member.path.as_str())
    }

    fn zeros(&mut self, count: u64, of: &str) -> Result<(), BundleError> {
        let found = self.block(count as usize)?;
        if found == END[..count as usize] {
            return Ok(());
        }
        Err(BundleError::Member { expected: format!("zeros after `{of}`"), found: "other bytes".into() })
    }

    /// Compares the end: two zero blocks and nothing more.
    pub(super) fn end(&mut self) -> Result<(), BundleError> {
        let found = self.block(END.len())?;
        if found != END {
            return Err(differs("the end", &found[..found.len().min(BLOCK as usize)]));
        }
        if !self.block(1)?.is_empty() {
            return Err(differs("the end", b"x"));
        }
        Ok(())
    }
}

fn differs(expected: &str, found: &[u8]) -> BundleError {
    BundleError::Member { expected: expected.to_owned(), found: describe(found) }
}

/// What a block is, in words, if it is a header; it is only shown.
fn describe(block: &[u8]) -> String {
    let Ok(bytes) = <&[u8; BLOCK as usize]>::try_from(block) else { return "other bytes".to_owned() };
    if bytes.iter().all(|byte| *byte == 0) {
        return "the end".to_owned();
    }
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    let header = Header::from_byte_slice(bytes);
    if header.cksum().ok() != Some(sum) {
        return "other bytes".to_owned();
    }
    let name = shown(&String::from_utf8_lossy(&header.path_bytes()));
    match header.entry_type() {
        EntryType::Regular => match header.size() {
            Ok(size) => format!("`{name}` of {size} bytes, mode {:04o}", header.mode().unwrap_or(0)),
            Err(_) => format!("`{name}`"),
        },
        EntryType::Symlink | EntryType::Link => format!("the link `{name}`"),
        EntryType::Directory => format!("the folder `{name}`"),
        EntryType::Char | EntryType::Block => format!("the device `{name}`"),
        EntryType::Fifo => format!("the FIFO `{name}`"),
        other => format!("`{name}` of type `{}`", other.as_byte().escape_ascii()),
    }
}
