//! Zip: the members of a zip file, read by a strict reader of our own.
//!
//! Layer 1 (documents). The central directory is the authority and every local header must repeat it: two
//! readers that look at different headers must see the same files. Accepted: stored and deflated members,
//! zip64, data descriptors. Refused: anything before the first member, between members or after the end
//! record's comment; encryption; other compressions; links and devices; names that are unsafe, not UTF-8,
//! with a backslash, or there twice. Must never believe a size before it is capped, nor hand out the last
//! byte of a member whose CRC or length is wrong.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::DeflateDecoder;
use libdeflater::{Crc, DecompressionError, Decompressor};

use super::{ArchiveError, ArchiveKind, MAX_ENTRIES, MAX_FILE, Place, at_most, check_folders, inflated_cap};
use crate::path::ImagePath;
use crate::tree::Mode;

/// Members up to this size are inflated in one go, which is twice as fast; larger ones are streamed, so that
/// memory stays flat.
pub const ONE_GO: u64 = 32 << 20;
/// The central directory may have this many bytes at most: it is read into memory.
const MAX_DIRECTORY: u64 = 512 << 20;
/// A buffer above this is given back when the next member needs less.
const KEEP_BUFFER: usize = 8 << 20;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END64: u32 = 0x0606_4b50;
const LOCATOR64: u32 = 0x0706_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;

const FLAG_ENCRYPTED: u16 = 1;
const FLAG_DESCRIPTOR: u16 = 1 << 3;
const FLAG_PATCH: u16 = 1 << 5;
const FLAG_STRONG: u16 = 1 << 6;
const FLAG_UTF8: u16 = 1 << 11;
const FLAG_MASKED: u16 = 1 << 13;

/// One member of a zip file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name.
    pub path: ImagePath,
    /// Whether it is a folder.
    pub folder: bool,
    /// Executable where the archive says so: a regular file by its Unix mode, with any x bit, as pip decides.
    pub mode: Mode,
    /// Inflated size.
    pub size: u64,
    crc: u32,
    packed: u64,
    deflated: bool,
    data_at: u64,
}

/// An opened zip file.
pub struct Zip<R> {
    kind: ArchiveKind,
    reader: R,
    members: Vec<Member>,
    packed: Vec<u8>,
    plain: Vec<u8>,
    inflater: Decompressor,
}

/// Little-endian numbers out of a slice; `None` past its end.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes)
    }
}

/// What the end of the file says about the central directory.
#[derive(Debug, PartialEq, Eq)]
struct Directory {
    at: u64,
    size: u64,
    entries: u64,
}

/// A record of the central directory, or the part of a local header that must repeat it.
struct Header<'a> {
    name: &'a [u8],
    flags: u16,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    attributes: u32,
    at: u64,
}

impl<R: Read + Seek> Zip<R> {
    /// Reads the directory and every local header; `kind` is what errors call it.
    pub fn open(kind: ArchiveKind, mut reader: R) -> Result<Self, ArchiveError> {
        let whole = || Place::whole(kind);
        let io = |source| ArchiveError::io(Place::whole(kind), source);
        let length = reader.seek(SeekFrom::End(0)).map_err(io)?;
        let directory = find_directory(kind, &mut reader, length)?;
        at_most(whole, "number of entries", directory.entries, MAX_ENTRIES as u64)?;
        at_most(whole, "size of the central directory", directory.size, MAX_DIRECTORY)?;
        let raw = read_at(&mut reader, directory.at, directory.size as usize).map_err(io)?;
        let mut fields = Fields(&raw);
        let mut found = Vec::new();
        for _ in 0..directory.entries {
            let header =
                central(&mut fields).ok_or_else(|| ArchiveError::malformed(whole(), "central directory is broken"))??;
            let member = admit(kind, &header)?;
            found.push((header, member));
        }
        if !fields.0.is_empty() {
            return Err(ArchiveError::malformed(whole(), "central directory is longer than its entries"));
        }
        // In order of position each member must begin where the one before ended, from byte 0 to the directory:
        // this excludes overlap and anything hidden before, between and after them.
        found.sort_by_key(|(header, _)| header.at);
        let mut position = 0u64;
        for (header, member) in &mut found {
            let place = || Place::member(kind, header.name);
            if header.at != position {
                let what = if header.at < position { "overlaps the member before it" } else { "bytes hidden before it" };
                return Err(ArchiveError::malformed(place(), what));
            }
            let gap_at = local(kind, &mut reader, header, directory.at, member)?;
            position = descriptor(kind, &mut reader, header, gap_at, directory.at)?;
        }
        if position != directory.at {
            return Err(ArchiveError::malformed(whole(), "bytes hidden before the central directory"));
        }
        let mut members: Vec<Member> = found.into_iter().map(|(_, member)| member).collect();
        members.sort_by(|a, b| a.path.cmp(&b.path));
        for pair in members.windows(2) {
            if pair[0].path == pair[1].path {
                return Err(ArchiveError::Duplicate { place: Place::member(kind, pair[0].path.as_str().as_bytes()) });
            }
        }
        let listed: Vec<(&ImagePath, bool)> = members.iter().map(|m| (&m.path, m.folder)).collect();
        check_folders(kind, &listed)?;
        let total = members.iter().fold(0u64, |sum, member| sum.saturating_add(member.size));
        at_most(whole, "inflated size", total, inflated_cap(length))?;
        Ok(Self { kind, reader, members, packed: Vec::new(), plain: Vec::new(), inflater: Decompressor::new() })
    }

    /// The members, sorted by path, each path once.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Index of the member at `path`.
    pub fn find(&self, path: &str) -> Option<usize> {
        self.members.binary_search_by(|member| member.path.as_str().cmp(path)).ok()
    }

    /// Whole content of a small member, checked.
    pub fn read(&mut self, index: usize, most: u64) -> Result<Vec<u8>, ArchiveError> {
        let (kind, member) = (self.kind, &self.members[index]);
        let place = Place::member(kind, member.path.as_str().as_bytes());
        at_most(|| place.clone(), "size", member.size, most)?;
        let mut content = Vec::with_capacity(member.size as usize);
        self.content(index)?.read_to_end(&mut content).map_err(|source| ArchiveError::io(place, source))?;
        Ok(content)
    }

    /// The first bytes of a member, unchecked: to look at what it is.
    pub fn peek(&mut self, index: usize, most: usize) -> Result<Vec<u8>, ArchiveError> {
        let place = Place::member(self.kind, self.members[index].path.as_str().as_bytes());
        let mut head = Vec::new();
        self.streamed(index)?.take(most as u64).read_to_end(&mut head).map_err(|source| ArchiveError::io(place, source))?;
        Ok(head)
    }

    /// Content of a file member; CRC and length are checked by the time it ends.
    pub fn content<'a>(&'a mut self, index: usize) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        let member = self.members[index].clone();
        if member.size <= ONE_GO && member.packed <= ONE_GO { self.inflated(&member) } else { self.streamed(index) }
    }

    fn inflated<'a>(&'a mut self, member: &Member) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        let kind = self.kind;
        let place = || Place::member(kind, member.path.as_str().as_bytes());
        let (packed, size) = (member.packed as usize, member.size as usize);
        let input = if member.deflated { grown(&mut self.packed, packed) } else { grown(&mut self.plain, packed) };
        self.reader
            .seek(SeekFrom::Start(member.data_at))
            .and_then(|_| self.reader.read_exact(input))
            .map_err(|source| ArchiveError::io(place(), source))?;
        if member.deflated {
            let output = grown(&mut self.plain, size);
            let inflated = self.inflater.deflate_decompress(&self.packed[..packed], output).map_err(|error| match error {
                DecompressionError::BadData => ArchiveError::malformed(place(), "deflated data is broken"),
                DecompressionError::InsufficientSpace => {
                    ArchiveError::mismatch(place(), "inflated size", member.size, "more bytes")
                }
            })?;
            if inflated != size {
                return Err(ArchiveError::mismatch(place(), "inflated size", member.size, inflated));
            }
        }
        let plain = &self.plain[..size];
        let crc = libdeflater::crc32(plain);
        if crc != member.crc {
            return Err(ArchiveError::mismatch(place(), "CRC-32", hex(member.crc), hex(crc)));
        }
        Ok(Box::new(plain))
    }

    fn streamed<'a>(&'a mut self, index: usize) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        let member = &self.members[index];
        let place = Place::member(self.kind, member.path.as_str().as_bytes());
        self.reader.seek(SeekFrom::Start(member.data_at)).map_err(|source| ArchiveError::io(place.clone(), source))?;
        let packed = (&mut self.reader).take(member.packed);
        let inner: Box<dyn Read + 'a> =
            if member.deflated { Box::new(DeflateDecoder::new_with_buf(packed, vec![0; 256 << 10])) } else { Box::new(packed) };
        Ok(Box::new(Checked { inner, place, left: member.size, size: member.size, crc: Crc::new(), expected: member.crc }))
    }
}

/// The first `length` bytes of a buffer that only grows, so that it is not filled with zeros for each member;
/// what one large member needed is given back.
fn grown(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length || (buffer.len() > KEEP_BUFFER && length <= KEEP_BUFFER) {
        // Gives the old one back before the new one is asked for.
        *buffer = Vec::new();
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

fn hex(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A stream of exactly `size` bytes with a known CRC.
struct Checked<'a> {
    inner: Box<dyn Read + 'a>,
    place: Place,
    left: u64,
    size: u64,
    crc: Crc,
    expected: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let n = if most == 0 { 0 } else { self.inner.read(&mut buf[..most])? };
        self.crc.update(&buf[..n]);
        self.left -= n as u64;
        if n == 0 && self.left > 0 {
            let found = self.size - self.left;
            return Err(ArchiveError::mismatch(self.place.clone(), "inflated size", self.size, found).into());
        }
        // Checked together with the last bytes, so that nobody can have them and miss the error.
        if self.left == 0 {
            if self.inner.read(&mut [0])? != 0 {
                return Err(ArchiveError::mismatch(self.place.clone(), "inflated size", self.size, "more bytes").into());
            }
            let found = self.crc.sum();
            if found != self.expected {
                return Err(ArchiveError::mismatch(self.place.clone(), "CRC-32", hex(self.expected), hex(found)).into());
            }
        }
        Ok(n)
    }
}

fn read_at<R: Read + Seek>(reader: &mut R, at: u64, length: usize) -> io::Result<Vec<u8>> {
    reader.seek(SeekFrom::Start(at))?;
    // Grows as bytes come, so that a length that is a lie allocates no more than the file has.
    let mut out = Vec::new();
    reader.by_ref().take(length as u64).read_to_end(&mut out)?;
    if out.len() == length { Ok(out) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Finds the end record. Its comment must end where the file ends, and the directory must end where the end
/// records begin.
fn find_directory<R: Read + Seek>(kind: ArchiveKind, reader: &mut R, length: u64) -> Result<Directory, ArchiveError> {
    let broken = |what: &str| ArchiveError::malformed(Place::whole(kind), what);
    let io = |source| ArchiveError::io(Place::whole(kind), source);
    let tail_length = length.min(22 + 65_535);
    let tail_at = length - tail_length;
    let tail = read_at(reader, tail_at, tail_length as usize).map_err(io)?;
    // The last signature in the file counts; that its comment reaches exactly to the end is then demanded.
    let at = tail
        .windows(22)
        .rposition(|window| window.starts_with(&END.to_le_bytes()))
        .ok_or_else(|| broken("no end record: not a zip file, or cut short"))?;
    let end_at = tail_at + at as u64;
    let short = || broken("end record is broken");
    let mut fields = Fields(&tail[at + 4..]);
    let (disk, first_disk) = (fields.u16().ok_or_else(short)?, fields.u16().ok_or_else(short)?);
    let (here, entries) = (fields.u16().ok_or_else(short)?, fields.u16().ok_or_else(short)?);
    let (size, start) = (fields.u32().ok_or_else(short)?, fields.u32().ok_or_else(short)?);
    let comment = fields.u16().ok_or_else(short)?;
    if fields.0.len() != usize::from(comment) {
        return Err(broken("bytes after the end record"));
    }
    let locator = match end_at.checked_sub(20) {
        Some(at) => read_at(reader, at, 20).map_err(io)?,
        None => Vec::new(),
    };
    if !locator.starts_with(&LOCATOR64.to_le_bytes()) {
        if disk != 0 || first_disk != 0 || here != entries {
            return Err(ArchiveError::refused(Place::whole(kind), "an archive in several parts is"));
        }
        let directory = Directory { at: start.into(), size: size.into(), entries: entries.into() };
        if directory.at + directory.size != end_at {
            return Err(broken("central directory does not end where the end record begins"));
        }
        return Ok(directory);
    }
    let end64_at = Fields(&locator[8..]).u64().ok_or_else(short)?;
    // Version 1 of the record, without an extensible sector, has 56 bytes and stands before the locator.
    if end64_at.checked_add(56 + 20) != Some(end_at) {
        return Err(broken("zip64 end record is not where it is said to be"));
    }
    let record = read_at(reader, end64_at, 56).map_err(io)?;
    let mut fields = Fields(&record);
    if fields.u32() != Some(END64) || fields.u64() != Some(44) {
        return Err(broken("zip64 end record is broken"));
    }
    fields.take(4);
    let disks = (fields.u32(), fields.u32());
    let (here64, entries64) = (fields.u64().ok_or_else(short)?, fields.u64().ok_or_else(short)?);
    let (size64, start64) = (fields.u64().ok_or_else(short)?, fields.u64().ok_or_else(short)?);
    if disks != (Some(0), Some(0)) || here64 != entries64 {
        return Err(ArchiveError::refused(Place::whole(kind), "an archive in several parts is"));
    }
    // The old record either repeats the number or says "see zip64".
    let agree = |old: u64, saturated: u64, new: u64| old == saturated || old == new;
    if !agree(entries.into(), 0xffff, entries64)
        || !agree(size.into(), 0xffff_ffff, size64)
        || !agree(start.into(), 0xffff_ffff, start64)
    {
        return Err(broken("the two end records disagree"));
    }
    if start64.checked_add(size64) != Some(end64_at) {
        return Err(broken("central directory does not end where the end record begins"));
    }
    Ok(Directory { at: start64, size: size64, entries: entries64 })
}

/// Parses one record of the central directory. `None`: cut short.
fn central<'a>(fields: &mut Fields<'a>) -> Option<Result<Header<'a>, ArchiveError>> {
    if fields.u32()? != CENTRAL {
        return None;
    }
    fields.take(4)?; // made by, needed
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.take(4)?; // time
    let crc = fields.u32()?;
    let (packed, size) = (fields.u32()?, fields.u32()?);
    let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let disk = fields.u16()?;
    fields.take(2)?; // internal attributes
    let attributes = fields.u32()?;
    let at = fields.u32()?;
    let name = fields.take(name.into())?;
    let extra = fields.take(extra.into())?;
    fields.take(comment.into())?;
    if disk != 0 && disk != 0xffff {
        return None;
    }
    let mut wide = [u64::from(size), u64::from(packed), u64::from(at)];
    widen(extra, name, &mut wide)?;
    let [size, packed, at] = wide;
    Some(Ok(Header { name, flags, method, crc, packed, size, attributes, at }))
}

/// Reads the zip64 extra field into those numbers that say "see there". `None`: broken, or a second name.
fn widen(extra: &[u8], name: &[u8], numbers: &mut [u64]) -> Option<()> {
    let mut fields = Fields(extra);
    let mut seen = false;
    while !fields.0.is_empty() {
        let (id, length) = (fields.u16()?, fields.u16()?);
        let mut body = Fields(fields.take(length.into())?);
        match id {
            0x0001 => {
                if std::mem::replace(&mut seen, true) {
                    return None;
                }
                for number in numbers.iter_mut().filter(|number| **number == 0xffff_ffff) {
                    *number = body.u64()?;
                }
            }
            // A Unicode path: some readers prefer it to the name.
            0x7075 if body.take(5).is_none() || body.0 != name => return None,
            _ => {}
        }
    }
    Some(())
}

/// Decides whether a member may be read at all, from its directory record alone.
fn admit(kind: ArchiveKind, header: &Header) -> Result<Member, ArchiveError> {
    let place = || Place::member(kind, header.name);
    let refused = |what: &str| Err(ArchiveError::refused(place(), what));
    if header.flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED) != 0 {
        return refused("encryption is");
    }
    if header.flags & FLAG_PATCH != 0 {
        return refused("patched data is");
    }
    if !matches!(header.method, 0 | 8) {
        return refused(&format!("compression method {} is", header.method));
    }
    if header.name.contains(&b'\\') {
        return refused("a backslash in a name is");
    }
    if !header.name.is_ascii() && header.flags & FLAG_UTF8 == 0 {
        return refused("a name that is neither ASCII nor marked as UTF-8 is");
    }
    let path = ImagePath::from_archive(header.name)
        .map_err(|source| ArchiveError::Path { place: place(), source })?
        .ok_or_else(|| ArchiveError::malformed(place(), "names the root"))?;
    let folder = header.name.ends_with(b"/");
    let mode = header.attributes >> 16;
    let regular = match mode & 0o170_000 {
        0 => false,
        0o100_000 if !folder => true,
        0o040_000 if folder => false,
        0o120_000 => return refused("a symbolic link is"),
        0o020_000 | 0o060_000 => return refused("a device is"),
        0o010_000 | 0o140_000 => return refused("a pipe or socket is"),
        _ => {
            return Err(ArchiveError::mismatch(
                place(),
                "type",
                if folder { "a folder" } else { "a file" },
                format!("mode {mode:o}"),
            ));
        }
    };
    if folder && header.size != 0 {
        return Err(ArchiveError::malformed(place(), "a folder with content"));
    }
    at_most(place, "inflated size", header.size, MAX_FILE)?;
    if header.method == 0 && header.packed != header.size {
        return Err(ArchiveError::mismatch(place(), "size of stored data", header.size, header.packed));
    }
    Ok(Member {
        path,
        folder,
        mode: if regular && mode & 0o111 != 0 { Mode::Executable } else { Mode::Plain },
        size: header.size,
        crc: header.crc,
        packed: header.packed,
        deflated: header.method == 8,
        data_at: 0,
    })
}

/// Checks the local header against the directory and sets where the data begins; returns where it ends.
fn local<R: Read + Seek>(
    kind: ArchiveKind,
    reader: &mut R,
    header: &Header,
    limit: u64,
    member: &mut Member,
) -> Result<u64, ArchiveError> {
    let place = || Place::member(kind, header.name);
    let io = |source| ArchiveError::io(place(), source);
    let broken = || ArchiveError::malformed(place(), "local header is broken");
    let fixed = read_at(reader, header.at, 30).map_err(io)?;
    let mut fields = Fields(&fixed);
    if fields.u32() != Some(LOCAL) {
        return Err(broken());
    }
    fields.take(2);
    let (flags, method) = (fields.u16().ok_or_else(broken)?, fields.u16().ok_or_else(broken)?);
    fields.take(4);
    let crc = fields.u32().ok_or_else(broken)?;
    let (packed, size) = (fields.u32().ok_or_else(broken)?, fields.u32().ok_or_else(broken)?);
    let (name, extra) = (fields.u16().ok_or_else(broken)?, fields.u16().ok_or_else(broken)?);
    let rest = read_at(reader, header.at + 30, usize::from(name) + usize::from(extra)).map_err(io)?;
    let (name, extra) = rest.split_at(name.into());
    if name != header.name {
        let shown = |name: &[u8]| format!("`{}`", name.escape_ascii());
        return Err(ArchiveError::mismatch(place(), "name in the local header", shown(header.name), shown(name)));
    }
    if (flags ^ header.flags) & (FLAG_ENCRYPTED | FLAG_DESCRIPTOR | FLAG_UTF8) != 0 || method != header.method {
        return Err(ArchiveError::malformed(place(), "local header differs from the central directory"));
    }
    let mut wide = [u64::from(size), u64::from(packed)];
    widen(extra, name, &mut wide).ok_or_else(broken)?;
    // With a data descriptor the writer may not have known them yet.
    let unknown = flags & FLAG_DESCRIPTOR != 0;
    for (what, expected, found) in [
        ("CRC-32 in the local header", u64::from(header.crc), u64::from(crc)),
        ("inflated size in the local header", header.size, wide[0]),
        ("packed size in the local header", header.packed, wide[1]),
    ] {
        if found != expected && !(unknown && matches!(found, 0 | 0xffff_ffff)) {
            return Err(ArchiveError::mismatch(place(), what, expected, found));
        }
    }
    member.data_at = header.at + 30 + rest.len() as u64;
    match member.data_at.checked_add(header.packed) {
        Some(end) if end <= limit => Ok(end),
        _ => Err(ArchiveError::malformed(place(), "data reaches past the central directory")),
    }
}

/// Where the next member begins: after the data descriptor, if there is one.
fn descriptor<R: Read + Seek>(
    kind: ArchiveKind,
    reader: &mut R,
    header: &Header,
    at: u64,
    limit: u64,
) -> Result<u64, ArchiveError> {
    if header.flags & FLAG_DESCRIPTOR == 0 {
        return Ok(at);
    }
    let place = || Place::member(kind, header.name);
    let raw =
        read_at(reader, at, limit.saturating_sub(at).min(24) as usize).map_err(|source| ArchiveError::io(place(), source))?;
    // With or without signature, sizes in 4 or 8 bytes: the format does not say which, the numbers do. What
    // follows must then be a header, which the caller checks by position.
    let mut forms: [Vec<u8>; 4] = Default::default();
    for (at, form) in forms.iter_mut().enumerate() {
        if at < 2 {
            form.extend(DESCRIPTOR.to_le_bytes());
        }
        form.extend(header.crc.to_le_bytes());
        for number in [header.packed, header.size] {
            let bytes = number.to_le_bytes();
            form.extend(if at % 2 == 0 { &bytes[..] } else { &bytes[..4] });
        }
    }
    let follows = |end: usize| {
        raw.len() == end || {
            // 24 bytes were read; the next signature may lie beyond them.
            let next = &raw[end..raw.len().min(end + 4)];
            LOCAL.to_le_bytes().starts_with(next)
        }
    };
    match forms.iter().find(|form| raw.starts_with(form) && follows(form.len())) {
        Some(form) => Ok(at + form.len() as u64),
        None => Err(ArchiveError::malformed(place(), "data descriptor differs from the central directory")),
    }
}

/// Reads every member of a zip file.
pub fn inspect<R: Read + Seek>(reader: R) -> Result<Vec<String>, ArchiveError> {
    let mut zip = Zip::open(ArchiveKind::Zip, reader)?;
    let (mut files, mut total) = (0u64, 0u64);
    for index in 0..zip.members.len() {
        if zip.members[index].folder {
            continue;
        }
        let place = Place::member(ArchiveKind::Zip, zip.members[index].path.as_str().as_bytes());
        total += io::copy(&mut zip.content(index)?, &mut io::sink()).map_err(|source| ArchiveError::io(place, source))?;
        files += 1;
    }
    Ok(vec!["zip".into(), format!("{} entries, {files} files, {total} bytes", zip.members.len())])
}

#[cfg(test)]
mod tests;
