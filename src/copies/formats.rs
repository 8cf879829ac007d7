//! Formats: what a file is by its first bytes, and whether it could hide anything.
//!
//! Layer 2 (decisions): pure. A known format is one that other programs open too; that something is hidden in
//! it is not excluded. Must never take a name for a format.

use super::OpaqueWhy;
use crate::artifact::Role;
use crate::weights::{FileKind, kind_of};

/// From this size on, in bytes, an opaque file could hold an adapter.
pub const LARGE: u64 = 64 << 10;
/// Bits a byte that bytes of weights reach and text does not.
const DENSE: f64 = 5.0;
/// Bytes of a file by which it is judged.
pub const SAMPLE: usize = 64 << 10;

/// What can be opened and looked into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Container {
    /// zip, a wheel or an npz among them.
    Zip,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// xz.
    Xz,
    /// A Debian package.
    Deb,
    /// bzip2, 7-Zip, RAR, LZ4: known, and not opened.
    Closed(&'static str),
}

/// What a file's first bytes say it can be opened as. A tar is none: its members lie in it as they are.
pub fn container(head: &[u8]) -> Option<Container> {
    const KNOWN: &[(&[u8], Container)] = &[
        (b"PK\x03\x04", Container::Zip),
        (b"\x1f\x8b\x08", Container::Gzip),
        (b"\x28\xb5\x2f\xfd", Container::Zstd),
        (b"\xfd7zXZ\0", Container::Xz),
        (b"!<arch>\ndebian-binary", Container::Deb),
        (b"BZh", Container::Closed("bzip2")),
        (b"7z\xbc\xaf\x27\x1c", Container::Closed("7-Zip")),
        (b"Rar!\x1a\x07", Container::Closed("RAR")),
        (b"\x04\x22\x4d\x18", Container::Closed("LZ4")),
    ];
    KNOWN.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, container)| *container)
}

/// Formats that are no tensors and that other programs open: programs, pictures, sound, fonts, tables, documents.
const KNOWN: &[&[u8]] = &[
    b"\x7fELF",
    b"MZ",
    b"\0asm",
    b"\xca\xfe\xba\xbe",
    b"\xcf\xfa\xed\xfe",
    b"!<arch>\n",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"RIFF",
    b"OggS",
    b"fLaC",
    b"ID3",
    b"II*\0",
    b"MM\0*",
    b"\0\x01\0\0",
    b"OTTO",
    b"wOFF",
    b"wOF2",
    b"%PDF",
    b"PAR1",
    b"ARROW1",
    b"SQLite format 3",
    b"TZif",
    b"\xde\x12\x04\x95",
];
/// Formats of arrays that are no weights to `pack`: numpy, HDF5.
const ARRAYS: &[&[u8]] = &[b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"];

/// Why a file could hide anything; `None` where it is known, small, text or declared. `sample` is its first
/// [`SAMPLE`] bytes or all of them.
pub fn opaque(role: Role, path: &str, size: u64, sample: &[u8]) -> Option<OpaqueWhy> {
    if matches!(role, Role::Model | Role::Weights) {
        return None;
    }
    let name = path.rsplit(['/', '!']).next().unwrap_or(path);
    match kind_of(&sample[..sample.len().min(crate::weights::HEAD)], name) {
        FileKind::Safetensors | FileKind::Gguf => return Some(OpaqueWhy::Tensors),
        FileKind::Pickle(_) if size >= LARGE => return Some(OpaqueWhy::Pickle),
        _ => {}
    }
    if size >= LARGE && ARRAYS.iter().any(|magic| sample.starts_with(magic)) {
        return Some(OpaqueWhy::Tensors);
    }
    if size < LARGE || KNOWN.iter().any(|magic| sample.starts_with(magic)) || container(sample).is_some() {
        return None;
    }
    if is_text(sample, false) {
        let digits = sample.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
        return (role == Role::Code && digits * 2 > sample.len()).then_some(OpaqueWhy::Digits);
    }
    (entropy(sample) >= DENSE).then_some(OpaqueWhy::Dense)
}

/// UTF-8 without NUL, but for a last character that was cut, and where it goes `on` from another part a first one.
pub fn is_text(sample: &[u8], on: bool) -> bool {
    let cut = if on { sample.iter().take(3).take_while(|byte| **byte >> 6 == 0b10).count() } else { 0 };
    let sample = &sample[cut..];
    !sample.contains(&0)
        && match std::str::from_utf8(sample) {
            Ok(_) => true,
            Err(error) => error.error_len().is_none() && error.valid_up_to() + 4 > sample.len(),
        }
}

/// Shannon entropy in bits a byte.
pub fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let all = bytes.len() as f64;
    counts.iter().filter(|count| **count > 0).map(|count| *count as f64 / all).map(|share| -share * share.log2()).sum()
}
