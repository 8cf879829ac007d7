//! Numbers: a tensor's bytes, streamed once: their SHA-256, and how many elements are no finite number.
//!
//! Layer 1 (documents): pure. Memory is one buffer of [`CHUNK`] bytes, whatever the tensor. Must never look
//! at elements one by one where a whole chunk can be seen to be finite: hashing is the floor.

use std::io::{self, Read};

use super::{Dtype, Float};
use crate::digest::{Digest, Hasher};

/// Bytes read at once: small enough to stay in a core's cache between hashing and counting.
pub const CHUNK: usize = 256 << 10;

/// Elements that are no finite number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NonFinite {
    /// Not a number.
    pub nan: u64,
    /// Positive or negative infinity.
    pub infinite: u64,
}

/// Reads `bytes` bytes and gives their digest and, where elements of this type can be no finite number, how many
/// are not. A C64 counts as two.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] where the reader ends earlier.
pub fn measure(reader: &mut impl Read, bytes: u64, dtype: Dtype) -> io::Result<(Digest, Option<NonFinite>)> {
    let mut hasher = Hasher::new();
    let mut found = dtype.float().map(|_| NonFinite::default());
    let mut buffer = vec![0; CHUNK.min(usize::try_from(bytes).unwrap_or(CHUNK))];
    let mut left = bytes;
    while left > 0 {
        // Chunks are filled, so that no element lies across two.
        let length = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
        let chunk = &mut buffer[..length];
        reader.read_exact(chunk)?;
        hasher.update(chunk);
        if let (Some(found), Some(float)) = (&mut found, dtype.float()) {
            count(chunk, float, found);
        }
        left -= length as u64;
    }
    Ok((hasher.finish(), found))
}

/// Adds the elements of a chunk that are no finite number.
fn count(chunk: &[u8], float: Float, found: &mut NonFinite) {
    match float {
        Float::Bits16(exponent) => {
            const EACH: u64 = 0x0001_0001_0001_0001;
            if has_full_exponent(chunk, u64::from(exponent) * EACH, 0x8000 * EACH) {
                for word in chunk.as_chunks::<2>().0 {
                    let bits = u16::from_le_bytes(*word) & 0x7fff;
                    found.add(bits & exponent == exponent, bits == exponent);
                }
            }
        }
        Float::Bits32 => {
            const EXPONENT: u32 = 0x7f80_0000;
            const EACH: u64 = 0x0000_0001_0000_0001;
            if has_full_exponent(chunk, u64::from(EXPONENT) * EACH, 0x8000_0000 * EACH) {
                for word in chunk.as_chunks::<4>().0 {
                    let bits = u32::from_le_bytes(*word) & 0x7fff_ffff;
                    found.add(bits & EXPONENT == EXPONENT, bits == EXPONENT);
                }
            }
        }
        Float::Bits64 => {
            const EXPONENT: u64 = 0x7ff0 << 48;
            for word in chunk.as_chunks::<8>().0 {
                let bits = u64::from_le_bytes(*word) & (u64::MAX >> 1);
                found.add(bits & EXPONENT == EXPONENT, bits == EXPONENT);
            }
        }
        Float::E5m2 => chunk.iter().for_each(|byte| found.add(byte & 0x7c == 0x7c, byte & 0x7f == 0x7c)),
        Float::E4m3fn => chunk.iter().for_each(|byte| found.add(byte & 0x7f == 0x7f, false)),
        Float::Fnuz => chunk.iter().for_each(|byte| found.add(*byte == 0x80, false)),
        Float::E8m0 => chunk.iter().for_each(|byte| found.add(*byte == 0xff, false)),
    }
}

/// Whether any element of a chunk may have an exponent of ones alone, eight bytes at a time: `exponents` and `signs`
/// are the masks of each element of a word. Adding the lowest bit of the exponent to it carries into the sign's
/// place just then, and never further. Bytes behind the last whole word count as such.
fn has_full_exponent(chunk: &[u8], exponents: u64, signs: u64) -> bool {
    let lowest = signs.wrapping_sub(exponents);
    let (words, rest) = chunk.as_chunks::<8>();
    let carried = words.iter().fold(0, |all, bytes| all | ((u64::from_le_bytes(*bytes) & exponents) + lowest));
    carried & signs != 0 || !rest.is_empty()
}

impl NonFinite {
    fn add(&mut self, special: bool, infinite: bool) {
        self.infinite += u64::from(infinite);
        self.nan += u64::from(special && !infinite);
    }

    /// Whether every element is a finite number.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(dtype: &str, bytes: &[u8]) -> Option<(u64, u64)> {
        let (digest, found) = measure(&mut &bytes[..], bytes.len() as u64, Dtype::named(dtype).unwrap()).unwrap();
        assert_eq!(digest, Digest::of(bytes));
        found.map(|found| (found.nan, found.infinite))
    }

    #[test]
    fn floats_agree_with_the_processor() {
        for (value, expected) in [
            (f32::NAN, (1, 0)),
            (-f32::NAN, (1, 0)),
            (f32::INFINITY, (0, 1)),
            (f32::NEG_INFINITY, (0, 1)),
            (f32::MAX, (0, 0)),
            (f32::MIN_POSITIVE / 2.0, (0, 0)),
            (-0.0, (0, 0)),
        ] {
            assert_eq!(counted("F32", &value.to_le_bytes()), Some(expected), "{value}");
            assert_eq!(counted("BF16", &value.to_le_bytes()[2..]), Some(expected).filter(|_| value != f32::MAX).or(Some((0, 0))));
            let wide = if value == f32::MAX { f64::MAX } else { f64::from(value) };
            assert_eq!(counted("F64", &wide.to_le_bytes()), Some(expected), "{value}");
        }
    }

    #[test]
    fn every_16_bit_and_8_bit_pattern_is_judged() {
        let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        assert_eq!(counted("F16", &all), Some((2 * 1023, 2)));
        assert_eq!(counted("BF16", &all), Some((2 * 127, 2)));
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(counted("F8_E5M2", &bytes), Some((6, 2)));
        assert_eq!(counted("F8_E4M3", &bytes), Some((2, 0)));
        assert_eq!(counted("F8_E4M3FNUZ", &bytes), Some((1, 0)));
        assert_eq!(counted("F8_E8M0", &bytes), Some((1, 0)));
        assert_eq!(counted("U8", &bytes), None);
        assert_eq!(counted("C64", &[f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes()].concat()), Some((1, 1)));
    }

    #[test]
    fn chunks_do_not_hide_the_last_element() {
        let mut bytes = vec![0u8; CHUNK * 2 + 6];
        bytes[CHUNK * 2 + 4..].copy_from_slice(&0x7e00u16.to_le_bytes());
        bytes[CHUNK - 2..CHUNK].copy_from_slice(&0xfc00u16.to_le_bytes());
        assert_eq!(counted("F16", &bytes), Some((1, 1)));
        assert_eq!(measure(&mut &bytes[..4], 5, Dtype::named("U8").unwrap()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
