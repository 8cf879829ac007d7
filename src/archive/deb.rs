//! Deb: a Debian binary package in its unpacked form.
//!
//! Layer 1 (documents). Owns the `ar` container, the choice of decompressor and the move to merged /usr: what
//! lies below `bin`, `sbin`, `lib`, `lib32`, `lib64` and `libx32` is put below `usr`, and those folders or
//! links themselves are left to the layer author. `data.tar` is decompressed once into an unnamed file in the
//! folder the caller gives. Folder modes (1777 of /tmp) and set-user-id bits are not kept: an image here has
//! 0644 and 0755 only. Must never run a maintainer script, nor look at one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::tar::{self, Indexed, TarKind, count_line};
use super::{Archive, ArchiveError, ArchiveKind, Entry, Kind, MAX_DOCUMENT, Place, at_most, inflated_cap};
use crate::path::ImagePath;

const KIND: ArchiveKind = ArchiveKind::Deb;
/// The folders that are links into `usr` on a merged system.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
/// Memory that an xz stream may ask for: what `xz -9` needs, four times over.
const XZ_MEMORY: u64 = 256 << 20;
/// Buffer between the decompressor and its users.
const BUFFER: usize = 256 << 10;

fn whole(what: impl Into<String>) -> ArchiveError {
    ArchiveError::malformed(Place::whole(KIND), what)
}

fn io_error(source: io::Error) -> ArchiveError {
    ArchiveError::io(Place::whole(KIND), source)
}

/// Where a member of the `ar` container lies.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part {
    name: String,
    at: u64,
    size: u64,
}

/// The two tars of a package.
#[derive(Debug)]
struct Parts {
    control: Part,
    data: Part,
}

/// Parses one 60-byte header of an `ar` container: name and size.
fn parse_ar_header(raw: &[u8; 60]) -> Option<(String, u64)> {
    if &raw[58..] != b"`\n" {
        return None;
    }
    let text = |range: std::ops::Range<usize>| std::str::from_utf8(&raw[range]).ok().map(|text| text.trim_end_matches(' '));
    let name = text(0..16)?;
    let size = text(48..58)?;
    if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((name.strip_suffix('/').unwrap_or(name).to_owned(), size.parse().ok()?))
}

/// Reads the container: `debian-binary` 2.x, `control.tar.*`, `data.tar.*`, in this order. As dpkg does,
/// members whose name starts with `_` are passed over; any other is refused.
fn parts<R: Read + Seek>(reader: &mut R) -> Result<Parts, ArchiveError> {
    let length = reader.seek(SeekFrom::End(0)).map_err(io_error)?;
    reader.rewind().map_err(io_error)?;
    let mut magic = [0u8; 8];
    let got = reader.read(&mut magic).map_err(io_error)?;
    if &magic[..got] != b"!<arch>\n" {
        return Err(whole("not a Debian package: no `!<arch>` at its start"));
    }
    let mut position = 8u64;
    let mut found: Vec<Part> = Vec::new();
    while position < length {
        let mut raw = [0u8; 60];
        reader.seek(SeekFrom::Start(position)).map_err(io_error)?;
        reader.read_exact(&mut raw).map_err(|_| whole("cut short inside a member's header"))?;
        let (name, size) = parse_ar_header(&raw).ok_or_else(|| whole("member's header is broken"))?;
        let at = position + 60;
        if size > length - at {
            let place = Place::member(KIND, name.as_bytes());
            return Err(ArchiveError::mismatch(place, "bytes", size, length - at));
        }
        // Members begin at even positions; the last one's padding may be missing.
        position = at + size + size % 2;
        if !name.starts_with('_') || found.is_empty() {
            found.push(Part { name, at, size });
        }
        at_most(|| Place::whole(KIND), "number of members", found.len() as u64, 16)?;
    }
    let names = found.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
    let wrong = || {
        let expected = "debian-binary, control.tar.*, data.tar.*";
        ArchiveError::mismatch(Place::whole(KIND), "members", expected, names.escape_debug())
    };
    let [version, control, data] = <[Part; 3]>::try_from(found).map_err(|_| wrong())?;
    if version.name != "debian-binary" || !control.name.starts_with("control.tar") || !data.name.starts_with("data.tar") {
        return Err(wrong());
    }
    at_most(|| Place::member(KIND, b"debian-binary"), "size", version.size, 64)?;
    let mut text = vec![0; version.size as usize];
    reader.seek(SeekFrom::Start(version.at)).and_then(|_| reader.read_exact(&mut text)).map_err(io_error)?;
    if !text.starts_with(b"2.") {
        let found = format!("`{}`", text.escape_ascii());
        return Err(ArchiveError::mismatch(Place::member(KIND, b"debian-binary"), "format", "2.0", found));
    }
    Ok(Parts { control, data })
}

/// The tar inside a part, decompressed by what its name says.
fn unpacked<'a, R: Read + Seek>(reader: &'a mut R, part: &Part) -> Result<Box<dyn Read + 'a>, ArchiveError> {
    reader.seek(SeekFrom::Start(part.at)).map_err(io_error)?;
    let packed = reader.take(part.size);
    let (_, ending) = part.name.split_once(".tar").unwrap_or_default();
    let place = || Place::member(KIND, part.name.as_bytes());
    Ok(match ending {
        "" => Box::new(packed),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                .map_err(|error| ArchiveError::io(place(), error.into()))?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        // Its window is limited to 128 MiB unless told otherwise.
        ".zst" => Box::new(zstd::stream::read::Decoder::new(packed).map_err(|error| ArchiveError::io(place(), error))?),
        other => return Err(ArchiveError::refused(place(), format!("compression `{}` is", other.escape_debug()))),
    })
}

/// The path on a merged system; `None` for the folders and links at the top themselves.
fn merged(path: &ImagePath) -> Option<ImagePath> {
    let text = path.as_str();
    match text.split_once('/') {
        None if MERGED.contains(&text) => None,
        Some((top, _)) if MERGED.contains(&top) => Some(ImagePath::new(&format!("usr/{text}")).unwrap_or_else(|_| path.clone())),
        _ => Some(path.clone()),
    }
}

/// The place a path has once the links at the top are followed: `bin` itself is `usr/bin`.
fn followed(path: Option<ImagePath>) -> Option<ImagePath> {
    let path = path?;
    match merged(&path) {
        Some(path) => Some(path),
        None => ImagePath::new(&format!("usr/{path}")).ok(),
    }
}

/// A link's target after the link has moved from `old` to `new`: it still leads to the same file. `None`: it
/// would lead to itself, as compatibility links between `/bin` and `/usr/bin` do.
fn retarget(old: &ImagePath, new: &ImagePath, target: String) -> Option<String> {
    let goal = followed(old.resolve_link(&target).ok()?);
    if goal.as_ref() == Some(new) {
        return None;
    }
    let leads = new.resolve_link(&target).ok().map(followed);
    if target.starts_with('/') || leads.as_ref() == Some(&goal) {
        return Some(target);
    }
    let folder = new.parent();
    Some(match (folder, goal) {
        (Some(folder), Some(goal)) => super::wheel::relative(&folder, &goal),
        (Some(folder), None) => vec![".."; folder.as_str().split('/').count()].join("/"),
        (None, _) => target,
    })
}

/// Moves everything to where it lies on a merged system.
fn merge(members: Vec<Indexed>) -> Result<Vec<Indexed>, ArchiveError> {
    let mut out: BTreeMap<ImagePath, TarKind> = BTreeMap::new();
    for Indexed { path: old, kind } in members {
        let place = || Place::member(KIND, old.as_str().as_bytes());
        let Some(new) = merged(&old) else {
            if matches!(kind, TarKind::File { .. }) {
                return Err(ArchiveError::malformed(place(), "is a file where a folder belongs"));
            }
            continue;
        };
        let kind = match kind {
            TarKind::Link { target } => match retarget(&old, &new, target) {
                Some(target) => TarKind::Link { target },
                None => continue,
            },
            kind => kind,
        };
        match out.get(&new) {
            Some(before) if !tar::same(before, &kind) => return Err(ArchiveError::Duplicate { place: place() }),
            Some(_) => {}
            None => {
                out.insert(new, kind);
            }
        }
    }
    let listed: Vec<(&ImagePath, bool)> = out.iter().map(|(path, kind)| (path, *kind == TarKind::Dir)).collect();
    super::check_folders(KIND, &listed)?;
    Ok(out.into_iter().map(|(path, kind)| Indexed { path, kind }).collect())
}

/// Hands on what it reads and writes it to the spool as well.
struct Tee<'a, R> {
    inner: R,
    spool: &'a mut dyn Write,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.spool.write_all(&buf[..n])?;
        Ok(n)
    }
}

/// Decompresses and indexes `data.tar`, writing the tar to `spool` in the same pass.
fn data_index<R: Read + Seek>(reader: &mut R, spool: &mut dyn Write) -> Result<Vec<Indexed>, ArchiveError> {
    let data = parts(reader)?.data;
    let cap = inflated_cap(data.size);
    let tee = Tee { inner: unpacked(reader, &data)?, spool };
    merge(tar::index(KIND, io::BufReader::with_capacity(BUFFER, tee), cap)?)
}

struct Deb {
    spool: File,
    entries: Vec<Entry>,
    /// Position of each entry's content in the spool; 0 where it has none.
    at: Vec<u64>,
}

/// A package in its unpacked form, on a system with merged /usr. `spool` is an empty file that holds the
/// decompressed content until the archive is dropped.
pub fn deb(file: File, spool: File) -> Result<Box<dyn Archive>, ArchiveError> {
    open(file, spool)
}

fn open<R: Read + Seek>(mut reader: R, mut spool: File) -> Result<Box<dyn Archive>, ArchiveError> {
    let members = data_index(&mut reader, &mut spool)?;
    let (mut entries, mut at) = (Vec::with_capacity(members.len()), Vec::with_capacity(members.len()));
    for Indexed { path, kind } in members {
        let (kind, begins) = match kind {
            TarKind::Dir => (Kind::Dir, 0),
            TarKind::Link { target } => (Kind::Link { target }, 0),
            TarKind::File { mode, size, at, .. } => (Kind::File { mode, size }, at),
        };
        entries.push(Entry { path, kind });
        at.push(begins);
    }
    Ok(Box::new(Deb { spool, entries, at }))
}

impl Archive for Deb {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn open<'a>(&'a mut self, index: usize) -> Result<Box<dyn Read + 'a>, ArchiveError> {
        let entry = &self.entries[index];
        let place = Place::member(KIND, entry.path.as_str().as_bytes());
        let Kind::File { size, .. } = entry.kind else {
            return Err(ArchiveError::malformed(place, "is not a file"));
        };
        self.spool.seek(SeekFrom::Start(self.at[index])).map_err(|source| ArchiveError::io(place.clone(), source))?;
        Ok(Box::new(Exact { inner: &self.spool, place, size, left: size }))
    }
}

/// Exactly `size` bytes, or an error.
struct Exact<'a> {
    inner: &'a File,
    place: Place,
    size: u64,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buf[..most])?;
        if n == 0 {
            return Err(ArchiveError::mismatch(self.place.clone(), "size", self.size, self.size - self.left).into());
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// Parses the fields of a control file: names as written, continuation lines joined by `\n`.
fn parse_control(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines().skip_while(|line| line.trim().is_empty()) {
        if line.trim().is_empty() {
            break;
        }
        if line.starts_with('#') {
            continue;
        }
        if line.starts_with([' ', '\t']) {
            let field = last.as_ref().and_then(|name| fields.get_mut(name)).ok_or("begins with a continuation line")?;
            field.push('\n');
            field.push_str(line.trim());
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("has the line `{}`", line.escape_debug()))?;
        if fields.insert(name.to_owned(), value.trim().to_owned()).is_some() {
            return Err(format!("has `{}` twice", name.escape_debug()));
        }
        last = Some(name.to_owned());
    }
    match ["Package", "Version", "Architecture"].into_iter().find(|name| !fields.contains_key(*name)) {
        Some(name) => Err(format!("has no `{name}`")),
        None => Ok(fields),
    }
}

/// The control fields of a package: Package, Version and Architecture are there.
pub fn deb_control(file: File) -> Result<BTreeMap<String, String>, ArchiveError> {
    control(&mut { file })
}

fn control<R: Read + Seek>(reader: &mut R) -> Result<BTreeMap<String, String>, ArchiveError> {
    let part = parts(reader)?.control;
    let mut spool = Vec::new();
    let tee = Tee { inner: unpacked(reader, &part)?, spool: &mut spool };
    let members = tar::index(KIND, io::BufReader::new(tee), MAX_DOCUMENT.min(inflated_cap(part.size)))?;
    let place = || Place::member(KIND, b"control");
    let found = members.iter().find(|member| member.path.as_str() == "control").map(|member| &member.kind);
    let Some(TarKind::File { size, at, .. }) = found else {
        return Err(ArchiveError::malformed(place(), "is missing"));
    };
    let bytes = spool.get(*at as usize..(at + size) as usize).unwrap_or_default();
    let text = std::str::from_utf8(bytes).map_err(|_| ArchiveError::malformed(place(), "is not UTF-8"))?;
    parse_control(text).map_err(|what| ArchiveError::malformed(place(), what))
}

/// Reads a whole package.
pub(super) fn inspect<R: Read + Seek>(mut reader: R) -> Result<Vec<String>, ArchiveError> {
    let control = control(&mut reader)?;
    let members = data_index(&mut reader, &mut io::sink())?;
    let field = |name: &str| control.get(name).map_or_else(String::new, |value| value.escape_debug().to_string());
    let mut lines =
        vec![format!("deb {} {} {}", field("Package"), field("Version"), field("Architecture")), count_line(&members)];
    for name in ["Pre-Depends", "Depends", "Provides"] {
        if control.contains_key(name) {
            lines.push(format!("{} {}", name.to_lowercase(), field(name)));
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests;
