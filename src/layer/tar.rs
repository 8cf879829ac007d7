//! The tar form of plan version 1: ustar headers, pax records where ustar has no room, one constant time,
//! uid and gid 0, empty names.
//!
//! Layer 3 (effects), over any writer. Header bytes come from the `tar` crate with every field set here;
//! its own path helpers, which read the file system, are never used. Changing anything changes digests.

use std::io::{self, Read, Write};

use tar::{EntryType, Header};

use crate::path::ImagePath;

/// 1980-01-01T00:00:00Z, the one time in an image: the oldest that a zip file can hold.
pub const TIME: u64 = 315_532_800;
/// Where the data of a file in a plain layer begins: a multiple of this, so that it can be reflinked.
pub const ALIGN: u64 = 4096;

const BLOCK: u64 = 512;
/// The largest size that fits ustar's eleven octal digits.
const MAX_USTAR_SIZE: u64 = 0o77_777_777_777;

/// Writes entries in the order they come.
pub struct TarWriter<W: Write> {
    inner: W,
    offset: u64,
}

impl<W: Write> TarWriter<W> {
    /// Nothing is written yet.
    pub fn new(inner: W) -> Self {
        Self { inner, offset: 0 }
    }

    /// A folder.
    pub fn dir(&mut self, path: &ImagePath, mode: u32) -> io::Result<()> {
        self.head(&format!("{path}/"), EntryType::Directory, mode, 0, "", false)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &ImagePath, target: &str) -> io::Result<()> {
        self.head(path.as_str(), EntryType::Symlink, 0o777, 0, target, false)
    }

    /// A file of exactly `size` bytes; with `aligned`, its data begins at a multiple of [`ALIGN`].
    pub fn file(&mut self, path: &ImagePath, mode: u32, size: u64, aligned: bool, data: &mut dyn Read) -> io::Result<()> {
        self.head(path.as_str(), EntryType::Regular, mode, size, "", aligned)?;
        let copied = io::copy(&mut data.take(size), &mut self.inner)?;
        self.offset += copied;
        if copied != size || data.read(&mut [0])? != 0 {
            let more = if copied == size { "more" } else { "fewer" };
            return Err(io::Error::other(format!("expected {size} bytes for `{path}`, found {more}")));
        }
        self.pad()
    }

    /// A file of exactly `size` bytes that `write` produces.
    pub fn file_with<E: From<io::Error>>(
        &mut self,
        path: &ImagePath,
        mode: u32,
        size: u64,
        write: impl FnOnce(&mut W) -> Result<u64, E>,
    ) -> Result<(), E> {
        self.head(path.as_str(), EntryType::Regular, mode, size, "", false)?;
        let written = write(&mut self.inner)?;
        self.offset += written;
        if written != size {
            return Err(io::Error::other(format!("expected {size} bytes for `{path}`, found {written}")).into());
        }
        self.pad()?;
        Ok(())
    }

    /// The two zero blocks; returns the inner writer.
    pub fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK as usize])?;
        Ok(self.inner)
    }

    fn pad(&mut self) -> io::Result<()> {
        let short = self.offset.next_multiple_of(BLOCK) - self.offset;
        self.put(&[0; BLOCK as usize][..short as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn head(&mut self, name: &str, kind: EntryType, mode: u32, size: u64, link: &str, aligned: bool) -> io::Result<()> {
        let mut header = Header::new_ustar();
        let mut pax: Vec<u8> = Vec::new();
        if !(name.is_ascii() && set_name(&mut header, name)) {
            record(&mut pax, "path", name);
        }
        if !link.is_empty() {
            if link.is_ascii() && link.len() <= 100 {
                header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            } else {
                record(&mut pax, "linkpath", link);
            }
        }
        if size > MAX_USTAR_SIZE {
            record(&mut pax, "size", &size.to_string());
        }
        if aligned {
            align(&mut pax, self.offset);
        }
        if !pax.is_empty() {
            let mut extension = Header::new_ustar();
            set_name(&mut extension, "./PaxHeaders");
            seal(&mut extension, EntryType::XHeader, 0o644, pax.len() as u64);
            self.put(extension.as_bytes())?;
            self.put(&pax)?;
            self.pad()?;
        }
        seal(&mut header, kind, mode, size.min(MAX_USTAR_SIZE));
        self.put(header.as_bytes())
    }
}

/// The header of a file, as [`TarWriter::file`] writes it where nothing is aligned: one block, or more where ustar
/// has no room.
pub fn header_of(path: &ImagePath, mode: u32, size: u64) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    tar.head(path.as_str(), EntryType::Regular, mode, size, "", false).expect("a vector takes every byte");
    tar.inner
}

/// Puts a name into ustar's name and prefix fields, if it fits.
fn set_name(header: &mut Header, name: &str) -> bool {
    let bytes = header.as_mut_bytes();
    if name.len() <= 100 {
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        return true;
    }
    // The split is at the last `/` that leaves a prefix of at most 155 bytes.
    let Some(at) = name[..name.len().min(156)].rfind('/') else { return false };
    let (prefix, rest) = (&name[..at], &name[at + 1..]);
    if rest.is_empty() || rest.len() > 100 || prefix.is_empty() {
        return false;
    }
    bytes[..rest.len()].copy_from_slice(rest.as_bytes());
    bytes[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    true
}

fn seal(header: &mut Header, kind: EntryType, mode: u32, size: u64) {
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(TIME);
    header.set_cksum();
}

/// One pax record, `<length> <key>=<value>\n`, where the length counts itself.
fn record(out: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

/// Fills the pax data with a comment, so that pax header, pax data and file header end at a multiple of
/// [`ALIGN`].
fn align(pax: &mut Vec<u8>, offset: u64) {
    let least = pax.len() as u64 + 16;
    let end = (offset + 2 * BLOCK + least.next_multiple_of(BLOCK)).next_multiple_of(ALIGN);
    let room = (end - offset - 2 * BLOCK) as usize - pax.len();
    // "<digits> comment=\n" around a value that makes the record exactly `room` bytes long.
    let fixed = room.to_string().len() + " comment=\n".len();
    record(pax, "comment", &"0".repeat(room - fixed));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        ImagePath::new(text).unwrap()
    }

    fn names(bytes: &[u8]) -> Vec<(String, u64)> {
        let mut archive = tar::Archive::new(bytes);
        let read = |e: io::Result<tar::Entry<&[u8]>>| {
            let e = e.unwrap();
            (e.path().unwrap().to_str().unwrap().to_owned(), e.raw_file_position())
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn what_is_written_reads_back() {
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
        let longer = format!("{}/{}", "d".repeat(200), "f".repeat(200));
        let mut tar = TarWriter::new(Vec::new());
        tar.dir(&path("a"), 0o755).unwrap();
        for name in ["a/b", "a/é", &long, &longer] {
            tar.file(&path(name), 0o644, 3, false, &mut &b"abc"[..]).unwrap();
        }
        tar.link(&path("l"), &"t".repeat(150)).unwrap();
        let bytes = tar.finish().unwrap();
        let found: Vec<String> = names(&bytes).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["a/", "a/b", "a/é", &long, &longer, "l"]);
        assert_eq!(bytes.len() % 512, 0);
    }

    #[test]
    fn aligned_data_begins_at_a_page() {
        for first in [0usize, 1, 512, 3000, 5000] {
            let mut tar = TarWriter::new(Vec::new());
            tar.file(&path("x"), 0o644, first as u64, false, &mut &vec![1u8; first][..]).unwrap();
            tar.file(&path("models/.blobs/aa"), 0o644, 10, true, &mut &[2u8; 10][..]).unwrap();
            tar.file(&path(&"y".repeat(250)), 0o644, 10, true, &mut &[3u8; 10][..]).unwrap();
            let bytes = tar.finish().unwrap();
            let found = names(&bytes);
            assert_eq!(found[1].1 % ALIGN, 0);
            assert_eq!(found[2].1 % ALIGN, 0);
            assert_eq!(bytes[found[1].1 as usize], 2);
        }
    }

    #[test]
    fn a_file_that_is_not_as_long_as_said_is_an_error() {
        for (data, word) in [(&b"ab"[..], "fewer"), (b"abcd", "more")] {
            let mut tar = TarWriter::new(Vec::new());
            let error = tar.file(&path("x"), 0o644, 3, false, &mut &data[..]).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn sizes_beyond_ustar_get_a_pax_record() {
        let mut tar = TarWriter::new(io::sink());
        let size = 9 << 30;
        tar.file(&path("x"), 0o644, size, true, &mut io::repeat(0).take(size)).unwrap();
        let mut pax = Vec::new();
        record(&mut pax, "size", "9663676416");
        assert_eq!(pax, b"19 size=9663676416\n");
    }
}
