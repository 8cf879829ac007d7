//! Tar: the members of an uncompressed tar, over any reader.
//!
//! Layer 1 (documents). Understands ustar, GNU long names and pax. Refused: devices, FIFOs, sparse files,
//! unsafe names, links out of the root, hard links to anything but an earlier file, a path twice with
//! different content, bytes after the end mark, a missing end mark. Owners, times, extended attributes, and
//! the set-user-id, set-group-id and sticky bits are dropped: an image has one owner and two modes. Must
//! never hold a file's content in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use ::tar::{EntryType, Header};

use super::{ArchiveError, ArchiveKind, MAX_ENTRIES, MAX_FILE, Place, at_most, check_folders};
use crate::digest::{Digest, Hasher};
use crate::path::{ImagePath, MAX_PATH};
use crate::tree::Mode;

const BLOCK: usize = 512;
/// A long name's content may have this many bytes, its NUL included.
const MAX_NAME: u64 = MAX_PATH as u64 + 1;
/// Pax records of one entry may have this many bytes: names, and times or attributes that are dropped.
const MAX_PAX: u64 = 1 << 20;

/// One member of a tar.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Indexed {
    /// Its path.
    pub path: ImagePath,
    /// What it is.
    pub kind: TarKind,
}

/// What a member of a tar is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarKind {
    /// A folder.
    Dir,
    /// A file, or a hard link to one.
    File {
        /// 0644 or 0755.
        mode: Mode,
        /// Bytes.
        size: u64,
        /// Where its content begins in the tar.
        at: u64,
        /// SHA-256 of its content.
        digest: Digest,
    },
    /// A symbolic link; its target stays inside the root.
    Link {
        /// As the link holds it.
        target: String,
    },
}

/// What pax records and GNU long-name members say about the member that follows them.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Reader<R> {
    kind: ArchiveKind,
    inner: R,
    position: u64,
    cap: u64,
}

impl<R: Read> Reader<R> {
    fn whole(&self) -> Place {
        Place::whole(self.kind)
    }

    /// Fills the buffer; `false` where the tar ends before its first byte.
    fn fill(&mut self, buf: &mut [u8]) -> Result<bool, ArchiveError> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ArchiveError::malformed(self.whole(), "cut short inside a tar block")),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArchiveError::io(self.whole(), source)),
            }
        }
        self.position += filled as u64;
        at_most(|| Place::whole(self.kind), "unpacked size", self.position, self.cap)?;
        Ok(true)
    }

    /// Reads `size` bytes and their padding, handing on the bytes.
    fn content(&mut self, place: &Place, size: u64, mut each: impl FnMut(&[u8])) -> Result<(), ArchiveError> {
        let mut buf = vec![0u8; (64 << 10).min(size.div_ceil(BLOCK as u64) * BLOCK as u64) as usize];
        let mut left = size;
        while left > 0 {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
            let padded = take.div_ceil(BLOCK) * BLOCK;
            if !self.fill(&mut buf[..padded])? {
                return Err(ArchiveError::malformed(place.clone(), "content is cut short"));
            }
            each(&buf[..take]);
            left -= take as u64;
        }
        Ok(())
    }

    fn small(&mut self, place: &Place, what: &'static str, size: u64, most: u64) -> Result<Vec<u8>, ArchiveError> {
        at_most(|| place.clone(), what, size, most)?;
        let mut out = Vec::new();
        self.content(place, size, |bytes| out.extend_from_slice(bytes))?;
        Ok(out)
    }
}

/// Reads a whole tar: its members sorted by path, each path once. `cap`: bytes it may have at most.
///
/// The root itself (`./`) is not listed. A path given twice is kept once where both are the same.
pub fn index<R: Read>(kind: ArchiveKind, reader: R, cap: u64) -> Result<Vec<Indexed>, ArchiveError> {
    let mut reader = Reader { kind, inner: reader, position: 0, cap };
    let mut found: BTreeMap<ImagePath, TarKind> = BTreeMap::new();
    let mut next = Overrides::default();
    let mut pending = false;
    let mut count = 0u64;
    let mut block = [0u8; BLOCK];
    loop {
        if !reader.fill(&mut block)? {
            return Err(ArchiveError::malformed(reader.whole(), "tar ends without its end mark"));
        }
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        count += 1;
        at_most(|| reader.whole(), "number of entries", count, MAX_ENTRIES as u64)?;
        let header = checked_header(kind, &block)?;
        let name = next.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let place = Place::member(kind, &name);
        let broken = |what: &str| ArchiveError::malformed(place.clone(), format!("tar header has no {what}"));
        let size = header.entry_size().map_err(|_| broken("size"))?;
        match header.entry_type() {
            EntryType::GNULongName => {
                next.path = Some(without_nul(reader.small(&place, "length of the name", size, MAX_NAME)?));
                pending = true;
                continue;
            }
            EntryType::GNULongLink => {
                next.link = Some(without_nul(reader.small(&place, "length of the link", size, MAX_NAME)?));
                pending = true;
                continue;
            }
            EntryType::XHeader => {
                let records = reader.small(&place, "length of pax records", size, MAX_PAX)?;
                pax(&place, &records, &mut next)?;
                pending = true;
                continue;
            }
            EntryType::XGlobalHeader => {
                // Records for all that follows: harmless where they name neither paths nor sizes (git writes a comment).
                let records = reader.small(&place, "length of pax records", size, MAX_PAX)?;
                let mut all = Overrides::default();
                pax(&place, &records, &mut all)?;
                if all.path.is_some() || all.link.is_some() || all.size.is_some() {
                    return Err(ArchiveError::refused(place, "a name or size for all members is"));
                }
                continue;
            }
            _ => {}
        }
        let overrides = std::mem::take(&mut next);
        pending = false;
        let path = ImagePath::from_archive(&name).map_err(|source| ArchiveError::Path { place: place.clone(), source })?;
        let size = overrides.size.unwrap_or(size);
        let link = overrides.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
        let refused = |what: &str| Err(ArchiveError::refused(place.clone(), what));
        let empty =
            || if size == 0 { Ok(()) } else { Err(ArchiveError::malformed(place.clone(), "has content it may not have")) };
        let item = match header.entry_type() {
            EntryType::Directory => {
                empty()?;
                TarKind::Dir
            }
            // Before ustar a folder was a file whose name ends with a slash.
            EntryType::Regular if name.ends_with(b"/") => {
                empty()?;
                TarKind::Dir
            }
            EntryType::Regular | EntryType::Continuous => {
                let bits = header.mode().map_err(|_| broken("mode"))?;
                at_most(|| place.clone(), "size", size, MAX_FILE)?;
                let at = reader.position;
                let mut hasher = Hasher::new();
                reader.content(&place, size, |bytes| hasher.update(bytes))?;
                TarKind::File { mode: Mode::from_bits(bits), size, at, digest: hasher.finish() }
            }
            EntryType::Symlink => {
                empty()?;
                let target = String::from_utf8(link)
                    .ok()
                    .filter(|target| !target.is_empty() && target.len() <= MAX_PATH && !target.chars().any(char::is_control))
                    .ok_or_else(|| {
                        ArchiveError::malformed(
                            place.clone(),
                            "link target is empty, too long, not UTF-8, or has control characters",
                        )
                    })?;
                let Some(path) = &path else { return refused("a link in place of the root is") };
                if path.resolve_link(&target).is_err() {
                    return Err(ArchiveError::LinkOut { place, target });
                }
                TarKind::Link { target }
            }
            EntryType::Link => {
                empty()?;
                let target =
                    ImagePath::from_archive(&link).map_err(|source| ArchiveError::Path { place: place.clone(), source })?;
                match target.as_ref().and_then(|target| found.get(target)) {
                    Some(file @ TarKind::File { .. }) => file.clone(),
                    _ => return refused(&format!("a hard link to `{}`, which is no earlier file, is", link.escape_ascii())),
                }
            }
            EntryType::Char | EntryType::Block => return refused("a device is"),
            EntryType::Fifo => return refused("a FIFO is"),
            EntryType::GNUSparse => return refused("a sparse file is"),
            other => return refused(&format!("type `{}` is", other.as_byte().escape_ascii())),
        };
        match path {
            None if item == TarKind::Dir => {}
            None => return refused("a file in place of the root is"),
            Some(path) => match found.get(&path) {
                Some(before) if !same(before, &item) => return Err(ArchiveError::Duplicate { place }),
                Some(_) => {}
                None => {
                    found.insert(path, item);
                }
            },
        }
    }
    if pending {
        return Err(ArchiveError::malformed(reader.whole(), "tar ends after a header for a member that is not there"));
    }
    while reader.fill_some(&mut block)? {
        if block.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::malformed(reader.whole(), "bytes after the tar's end mark"));
        }
    }
    let listed: Vec<(&ImagePath, bool)> = found.iter().map(|(path, item)| (path, *item == TarKind::Dir)).collect();
    check_folders(kind, &listed)?;
    Ok(found.into_iter().map(|(path, kind)| Indexed { path, kind }).collect())
}

impl<R: Read> Reader<R> {
    /// As `fill`, but a last block that is cut short counts as padding.
    fn fill_some(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, ArchiveError> {
        block.fill(0);
        let n = match self.inner.read(block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            read => read.map_err(|source| ArchiveError::io(self.whole(), source))?,
        };
        self.position += n as u64;
        at_most(|| Place::whole(self.kind), "unpacked size", self.position, self.cap)?;
        Ok(n > 0)
    }
}

/// Whether two members of one path are the same, wherever their content lies.
pub(super) fn same(one: &TarKind, two: &TarKind) -> bool {
    match (one, two) {
        (TarKind::File { mode, size, digest, .. }, TarKind::File { mode: other_mode, size: other_size, digest: other, .. }) => {
            (mode, size, digest) == (other_mode, other_size, other)
        }
        _ => one == two,
    }
}

fn without_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

fn checked_header(kind: ArchiveKind, block: &[u8; BLOCK]) -> Result<Header, ArchiveError> {
    let header = Header::from_byte_slice(block).clone();
    // The sum of all bytes with the checksum's own field taken as spaces.
    let sum: u32 = block[..148].iter().chain(&block[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    match header.cksum() {
        Ok(stated) if stated == sum => Ok(header),
        Ok(stated) => Err(ArchiveError::mismatch(Place::whole(kind), "checksum of a tar header", stated, sum)),
        Err(_) => Err(ArchiveError::malformed(Place::whole(kind), "not a tar header")),
    }
}

/// Reads pax records: `<length> <key>=<value>\n`, where the length counts the whole record.
fn pax(place: &Place, mut records: &[u8], next: &mut Overrides) -> Result<(), ArchiveError> {
    let broken = || ArchiveError::malformed(place.clone(), "pax record is broken");
    while !records.is_empty() {
        let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let length: usize = std::str::from_utf8(&records[..space]).ok().and_then(|n| n.parse().ok()).ok_or_else(broken)?;
        let (record, rest) = records.split_at_checked(length).ok_or_else(broken)?;
        let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or_else(broken)?;
        let equals = body.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = (&body[..equals], &body[equals + 1..]);
        match key {
            b"path" => next.path = Some(value.to_vec()),
            b"linkpath" => next.link = Some(value.to_vec()),
            b"size" => {
                next.size = Some(std::str::from_utf8(value).ok().and_then(|n| n.parse().ok()).ok_or_else(broken)?);
            }
            key if key.starts_with(b"GNU.sparse.") => return Err(ArchiveError::refused(place.clone(), "a sparse file is")),
            _ => {}
        }
        records = rest;
    }
    Ok(())
}

/// Reads a whole tar.
pub(super) fn inspect(file: File) -> Result<Vec<String>, ArchiveError> {
    let members = index(ArchiveKind::Tar, io::BufReader::with_capacity(256 << 10, file), super::MAX_TOTAL)?;
    Ok(vec!["tar".into(), count_line(&members)])
}

/// `12 entries, 9 files, 1234 bytes`.
pub(super) fn count_line(members: &[Indexed]) -> String {
    let sizes = members.iter().filter_map(|member| match member.kind {
        TarKind::File { size, .. } => Some(size),
        _ => None,
    });
    let (files, total) = sizes.fold((0, 0u64), |(files, total), size| (files + 1, total.saturating_add(size)));
    format!("{} entries, {files} files, {total} bytes", members.len())
}

#[cfg(test)]
mod tests;
