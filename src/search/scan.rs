//! Scan: one file, its bytes and what it can be opened as, and so on inwards.
//!
//! Layer 3 (effects). A file that can be opened is searched as it lies and member by member; a member that can be
//! opened itself is written to a file without a name first. Must never unpack more than an archive of its size
//! may hold.

#![allow(clippy::disallowed_methods, reason = "effects: reads files and writes unnamed ones")]

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
struct Seen {
    hits: Vec<Hit>,
    /// In the text without what stands between digits.
    squeezed: Vec<Hit>,
    sample: Vec<u8>,
    bytes: u64,
}

/// Is given the content of a file, from its first byte.
type Take<'a> = dyn FnMut(&mut dyn Read) -> io::Result<()> + 'a;
/// Hands the content to a [`Take`], as often as it is asked to.
type With<'a> = dyn FnMut(&mut Take<'_>) -> io::Result<()> + 'a;
/// Opens a stream anew, from its first byte.
type Opener<'a> = dyn FnMut() -> io::Result<Box<dyn Read + 'a>> + 'a;

impl Search<'_> {
    /// Searches an open file called `name`; `member` is where it lies in the blob.
    pub(super) fn file(
        &self,
        file: &File,
        role: Role,
        name: &str,
        member: &str,
        depth: usize,
        out: &mut InBlob,
    ) -> io::Result<()> {
        let size = file.metadata()?.len();
        let open = || -> io::Result<Box<dyn Read + '_>> {
            let mut from: &File = file;
            from.seek(SeekFrom::Start(0))?;
            Ok(Box::new(from))
        };
        let seen = self.look(&mut *open()?)?;
        self.note(&seen, role, name, member, &mut { open }, out)?;
        let Some(container) = formats::container(&seen.sample) else { return Ok(()) };
        if depth == DEPTH {
            out.unread.push((member.to_owned(), format!("archives in archives are opened {DEPTH} deep")));
            return Ok(());
        }
        let cap = size.saturating_mul(MAX_RATIO).saturating_add(RATIO_FREE);
        let opened = match container {
            Container::Zip => self.zip(file, role, member, depth, out),
            Container::Deb => self.deb(file, role, member, depth, out),
            Container::Closed(what) => Err(io::Error::other(format!("{what} is not opened"))),
            Container::Gzip | Container::Zstd | Container::Xz => {
                let mut open = || -> io::Result<Box<dyn Read + '_>> {
                    let mut from: &File = file;
                    from.seek(SeekFrom::Start(0))?;
                    Ok(Box::new(Capped { inner: unpacked(container, from)?, left: cap }))
                };
                let inner = format!("{member}!");
                self.member(&mut open, role, name, &inner, depth, out)
            }
        };
        // What is inside cannot be told; the search goes on.
        if let Err(error) = opened {
            out.unread.push((member.to_owned(), error_text(&error)));
        }
        Ok(())
    }

    fn zip(&self, file: &File, role: Role, member: &str, depth: usize, out: &mut InBlob) -> io::Result<()> {
        let mut zip = Zip::open(ArchiveKind::Zip, file)?;
        for at in 0..zip.members().len() {
            if zip.members()[at].folder {
                continue;
            }
            let name = zip.members()[at].path.to_string();
            let inner = format!("{member}!{name}");
            let zip = std::cell::RefCell::new(&mut zip);
            self.streamed(
                &mut |each| {
                    let mut zip = zip.borrow_mut();
                    let mut content = zip.content(at)?;
                    each(&mut *content)
                },
                role,
                &name,
                &inner,
                depth,
                out,
            )?;
        }
        Ok(())
    }

    fn deb(&self, file: &File, role: Role, member: &str, depth: usize, out: &mut InBlob) -> io::Result<()> {
        let mut from: &File = file;
        from.seek(SeekFrom::Start(0))?;
        let mut deb = archive::deb(file.try_clone()?, self.store.root())?;
        for at in 0..deb.entries().len() {
            let archive::Kind::File { .. } = deb.entries()[at].kind else { continue };
            let name = deb.entries()[at].path.to_string();
            let inner = format!("{member}!{name}");
            let deb = std::cell::RefCell::new(&mut deb);
            self.streamed(
                &mut |each| {
                    let mut deb = deb.borrow_mut();
                    let mut content = deb.open(at)?;
                    each(&mut *content)
                },
                role,
                &name,
                &inner,
                depth,
                out,
            )?;
        }
        Ok(())
    }

    fn member(
        &self,
        open: &mut Opener<'_>,
        role: Role,
        name: &str,
        member: &str,
        depth: usize,
        out: &mut InBlob,
    ) -> io::Result<()> {
        self.streamed(&mut |each| each(&mut *open()?), role, name, member, depth, out)
    }

    /// Searches what an archive hands out; `with` calls its argument with the content from its first byte.
    fn streamed(
        &self,
        with: &mut With<'_>,
        role: Role,
        name: &str,
        member: &str,
        depth: usize,
        out: &mut InBlob,
    ) -> io::Result<()> {
        let mut head = Vec::new();
        with(&mut |content| content.take(crate::weights::HEAD as u64).read_to_end(&mut head).map(drop))?;
        if formats::container(&head).is_some() {
            let mut spool = tempfile::tempfile_in(self.store.root())?;
            with(&mut |content| io::copy(content, &mut spool).map(drop))?;
            spool.flush()?;
            return self.file(&spool, role, name, member, depth + 1, out);
        }
        let mut seen = None;
        with(&mut |content| {
            seen = Some(self.look(content)?);
            Ok(())
        })?;
        let Some(seen) = seen else { return Ok(()) };
        self.note_with(&seen, role, name, member, with, out)
    }

    /// Looks through a stream.
    fn look(&self, reader: &mut dyn Read) -> io::Result<Seen> {
        let mut seen = Seen { hits: Vec::new(), squeezed: Vec::new(), sample: Vec::new(), bytes: 0 };
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

    fn note<'r>(
        &self,
        seen: &Seen,
        role: Role,
        name: &str,
        member: &str,
        open: &mut impl FnMut() -> io::Result<Box<dyn Read + 'r>>,
        out: &mut InBlob,
    ) -> io::Result<()> {
        self.note_with(seen, role, name, member, &mut |each| each(&mut *open()?), out)
    }

    /// Adds what was seen; a tensor that would lie there as its bytes is held against the digest.
    fn note_with(
        &self,
        seen: &Seen,
        role: Role,
        name: &str,
        member: &str,
        with: &mut With<'_>,
        out: &mut InBlob,
    ) -> io::Result<()> {
        out.files += 1;
        out.bytes += seen.bytes;
        if let Some(why) = formats::opaque(role, name, seen.bytes, &seen.sample) {
            let is_package = matches!(role, Role::System | Role::Python);
            if !is_package || why != crate::copies::OpaqueWhy::Dense {
                out.opaque.push((member.to_owned(), why, seen.bytes));
            }
        }
        let sizes: Vec<u64> = self.wanted.iter().map(|want| want.bytes).collect();
        for ((tensor, form), begins) in gather(self.index, &seen.hits, &sizes) {
            let best = begins.iter().max_by_key(|(begin, count)| (**count, begin.is_some())).and_then(|(begin, _)| *begin);
            let want = &self.wanted[tensor];
            let mut whole = false;
            if let (Form::Bytes, Some(begin)) = (form, best)
                && begin + want.bytes <= seen.bytes
            {
                with(&mut |content| {
                    whole = digest_at(content, begin, want.bytes)? == want.tensor.digest;
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

/// Ends with an error instead of one byte too many.
pub(super) struct Capped<R> {
    pub(super) inner: R,
    pub(super) left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| io::Error::other("it unpacks to far more than its size"))?;
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
