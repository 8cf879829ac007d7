//! Scan: one file, its bytes and what it can be opened as, and so on inwards.
//!
//! Layer 3 (effects). A file that can be opened is searched as it lies and member by member; a member that can be
//! opened itself is written to a file without a name first. Must never unpack more of a blob, archives in archives
//! together, than an archive of its size may hold.

#![allow(clippy::disallowed_methods, reason = "effects: reads files and writes unnamed ones")]

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};

use super::{InBlob, Search};
use crate::archive::{self, ArchiveKind, MAX_RATIO, RATIO_FREE, Zip};
use crate::artifact::Role;
use crate::copies::Form;
use crate::copies::formats::{self, Container, SAMPLE};
use crate::copies::needles::{Hit, LONGEST, gather, squeezed};
use crate::digest::Hasher;

/// Bytes that are looked through at once.
const CHUNK: usize = 1 << 20;
/// Archives in archives that are opened.
const DEPTH: usize = 3;
/// Finds of one file that are kept.
const MOST: usize = 4096;
/// Bytes of a decompressor's window that are given, in xz.
const XZ_MEMORY: u64 = 96 << 20;

/// What looking through a stream gave.
#[derive(Default)]
struct Seen {
    hits: Vec<Hit>,
    /// In the text without what stands between digits.
    squeezed: Vec<Hit>,
    sample: Vec<u8>,
    bytes: u64,
}

/// Where in a blob a file lies.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    /// What the blob is in the project.
    pub role: Role,
    /// The file's own name, which says what is usual in it.
    pub name: &'a str,
    /// Its path through the archives that hold it, each but the last followed by `!`.
    pub member: &'a str,
    /// Archives that hold it.
    pub depth: usize,
    /// Bytes that may still be unpacked of the blob, whatever the archive they lie in.
    pub budget: &'a Cell<u64>,
}

/// Bytes that may be unpacked of a blob of this size.
pub(super) fn budget(size: u64) -> Cell<u64> {
    Cell::new(size.saturating_mul(MAX_RATIO).saturating_add(RATIO_FREE))
}

/// Is given the content of a file, from its first byte.
type Take<'a> = dyn FnMut(&mut dyn Read) -> io::Result<()> + 'a;
/// Hands the content to a [`Take`], as often as it is asked to.
type With<'a> = dyn FnMut(&mut Take<'_>) -> io::Result<()> + 'a;

impl Search<'_> {
    /// Searches an open file.
    pub(super) fn file(&self, file: &File, spot: Spot<'_>, out: &mut InBlob) -> io::Result<()> {
        let mut content = |each: &mut Take<'_>| each(&mut from_start(file)?);
        let seen = self.looked(&mut content)?;
        self.note(&seen, spot, &mut content, out)?;
        let Some(container) = formats::container(&seen.sample) else { return Ok(()) };
        if spot.depth == DEPTH {
            out.unread.push((spot.member.to_owned(), format!("archives in archives are opened {DEPTH} deep")));
            return Ok(());
        }
        let opened = match container {
            Container::Zip => self.zip(file, spot, out),
            Container::Deb => self.deb(file, spot, out),
            Container::Closed(what) => Err(io::Error::other(format!("{what} is not opened"))),
            Container::Gzip | Container::Zstd | Container::Xz => {
                let member = format!("{}!", spot.member);
                let inner = Spot { member: &member, ..spot };
                self.member(inner, &mut |each| each(&mut unpacked(container, from_start(file)?)?), out)
            }
        };
        // What is inside cannot be told; the search goes on.
        if let Err(error) = opened {
            out.unread.push((spot.member.to_owned(), error_text(&error)));
        }
        Ok(())
    }

    fn zip(&self, file: &File, spot: Spot<'_>, out: &mut InBlob) -> io::Result<()> {
        let mut zip = Zip::open(ArchiveKind::Zip, file)?;
        for at in 0..zip.members().len() {
            let member = &zip.members()[at];
            if !member.folder {
                let name = member.path.to_string();
                self.archived(&name, spot, &mut |each| each(&mut *zip.content(at)?), out)?;
            }
        }
        Ok(())
    }

    fn deb(&self, file: &File, spot: Spot<'_>, out: &mut InBlob) -> io::Result<()> {
        from_start(file)?;
        let mut deb = archive::deb(file.try_clone()?, tempfile::tempfile_in(self.store.root())?)?;
        for at in 0..deb.entries().len() {
            let entry = &deb.entries()[at];
            if let archive::Kind::File { .. } = entry.kind {
                let name = entry.path.to_string();
                self.archived(&name, spot, &mut |each| each(&mut *deb.open(at)?), out)?;
            }
        }
        Ok(())
    }

    /// Searches a member that an archive calls `name`.
    fn archived(&self, name: &str, archive: Spot<'_>, content: &mut With<'_>, out: &mut InBlob) -> io::Result<()> {
        let member = format!("{}!{name}", archive.member);
        self.member(Spot { name, member: &member, ..archive }, content, out)
    }

    /// Searches what an archive hands out; `content` calls its argument with the bytes from the first one.
    fn member(&self, spot: Spot<'_>, content: &mut With<'_>, out: &mut InBlob) -> io::Result<()> {
        let mut head = Vec::new();
        content(&mut |bytes| bytes.take(crate::weights::HEAD as u64).read_to_end(&mut head).map(drop))?;
        if formats::container(&head).is_some() {
            let mut spool = tempfile::tempfile_in(self.store.root())?;
            content(&mut |bytes| io::copy(&mut Capped { inner: bytes, left: spot.budget }, &mut spool).map(drop))?;
            spool.flush()?;
            return self.file(&spool, Spot { depth: spot.depth + 1, ..spot }, out);
        }
        let seen =
            self.looked(&mut |each: &mut Take<'_>| content(&mut |bytes| each(&mut Capped { inner: bytes, left: spot.budget })))?;
        self.note(&seen, spot, content, out)
    }

    /// Looks through what `content` hands out.
    fn looked(&self, content: &mut With<'_>) -> io::Result<Seen> {
        let mut seen = Seen::default();
        content(&mut |bytes| {
            seen = self.look(bytes)?;
            Ok(())
        })?;
        Ok(seen)
    }

    /// Looks through a stream.
    fn look(&self, reader: &mut dyn Read) -> io::Result<Seen> {
        let mut seen = Seen::default();
        let mut buffer = vec![0; LONGEST + CHUNK];
        let mut text: Vec<u8> = Vec::new();
        let (mut kept, mut squeezed_before) = (0, 0u64);
        loop {
            let mut filled = kept;
            while filled < buffer.len() {
                match reader.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let fresh = &buffer[kept..filled];
            if fresh.is_empty() {
                seen.hits.sort_unstable();
                seen.hits.dedup();
                seen.squeezed.sort_unstable();
                seen.squeezed.dedup();
                return Ok(seen);
            }
            let want = SAMPLE.saturating_sub(seen.sample.len()).min(fresh.len());
            seen.sample.extend_from_slice(&fresh[..want]);
            let keep = |hits: &mut Vec<Hit>, hit| {
                if hits.len() < MOST {
                    hits.push(hit);
                }
            };
            let start = seen.bytes - kept as u64;
            self.index.find(&buffer[..filled], start, |hit| keep(&mut seen.hits, hit));
            match squeezed(fresh) {
                Some(more) => {
                    let tail = text.len().saturating_sub(LONGEST);
                    squeezed_before += tail as u64;
                    text.drain(..tail);
                    text.extend(more);
                    self.index.find(&text, squeezed_before, |hit| keep(&mut seen.squeezed, hit));
                }
                None => {
                    squeezed_before += text.len() as u64;
                    text.clear();
                }
            }
            seen.bytes += fresh.len() as u64;
            let next = filled.min(LONGEST);
            buffer.copy_within(filled - next..filled, 0);
            kept = next;
        }
    }

    /// Adds what was seen; a tensor that would lie there as its bytes is held against the digest.
    fn note(&self, seen: &Seen, spot: Spot<'_>, content: &mut With<'_>, out: &mut InBlob) -> io::Result<()> {
        let Spot { role, name, member, .. } = spot;
        out.files += 1;
        out.bytes += seen.bytes;
        if let Some(why) = formats::opaque(role, name, seen.bytes, &seen.sample) {
            out.opaque.push((member.to_owned(), why, seen.bytes));
        }
        let sizes: Vec<u64> = self.wanted.iter().map(|want| want.bytes).collect();
        for ((tensor, form), begins) in gather(self.index, &seen.hits, &sizes) {
            let best = begins.iter().max_by_key(|(begin, count)| (**count, begin.is_some())).and_then(|(begin, _)| *begin);
            let want = &self.wanted[tensor];
            let mut whole = false;
            if let (Form::Bytes, Some(begin)) = (form, best)
                && begin + want.bytes <= seen.bytes
            {
                content(&mut |bytes| {
                    whole = digest_at(bytes, begin, want.bytes)? == want.tensor.digest;
                    Ok(())
                })?;
            }
            out.found.push((member.to_owned(), tensor, form, best, whole));
        }
        for ((tensor, form), _) in gather(self.index, &seen.squeezed, &sizes) {
            let told =
                out.found.iter().any(|(at, other, other_form, ..)| at == member && *other == tensor && *other_form == form);
            if matches!(form, Form::Hex | Form::Base64) && !told {
                out.found.push((member.to_owned(), tensor, form, None, false));
            }
        }
        Ok(())
    }
}

/// The file, read from its first byte.
fn from_start(mut file: &File) -> io::Result<&File> {
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn digest_at(content: &mut dyn Read, begin: u64, bytes: u64) -> io::Result<crate::digest::Digest> {
    io::copy(&mut content.take(begin), &mut io::sink())?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut left = bytes;
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match content.read(&mut buffer[..most])? {
            0 => break,
            n => {
                hasher.update(&buffer[..n]);
                left -= n as u64;
            }
        }
    }
    Ok(hasher.finish())
}

fn unpacked<'a>(container: Container, file: &'a File) -> io::Result<Box<dyn Read + 'a>> {
    let buffered = BufReader::with_capacity(256 << 10, file);
    Ok(match container {
        Container::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Container::Zstd => Box::new(zstd::Decoder::with_buffer(buffered)?),
        _ => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered, stream))
        }
    })
}

/// Ends with an error instead of one byte too many; what is read is gone for every other reader of the same budget.
pub(super) struct Capped<'a, R> {
    pub(super) inner: R,
    pub(super) left: &'a Cell<u64>,
}

impl<R: Read> Read for Capped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.get().checked_sub(n as u64);
        self.left.set(left.ok_or_else(|| io::Error::other("it unpacks to far more than its size"))?);
        Ok(n)
    }
}

fn error_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.get_ref().and_then(|inner| inner.source());
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
