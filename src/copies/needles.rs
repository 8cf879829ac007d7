//! Needles: short pieces of tensors, in the forms in which they may be hidden, and the index that finds them.
//!
//! Layer 2 (decisions): pure. Not every byte of an input is looked up: a piece is entered at [`STRIDE`]
//! positions that follow each other, and of the input every [`STRIDE`]th position is looked up, so that wherever
//! a copy lies one of them meets. A look-up is a word of eight bytes, a filter of bits, and then the whole
//! piece. Must never let a piece into the index that ordinary bytes would match.

use std::collections::BTreeMap;

use super::Form;

/// Every so many bytes an input is looked up.
pub const STRIDE: usize = 16;
/// Bytes of a piece, at most.
pub const PIECE: usize = 80;
/// Bytes of a tensor below which it is not looked for.
pub const LEAST: u64 = 64;
/// Bytes that are looked up at once.
const WORD: usize = 8;
/// A piece's bytes in the longest form.
pub const LONGEST: usize = 2 * PIECE;
/// Pieces of all tensors together, each in every form.
const MOST: usize = 24_000;

/// How many pieces are taken of each tensor, of so many.
pub fn pieces_each(tensors: usize) -> usize {
    (MOST / tensors.max(1)).clamp(2, 8)
}

/// A piece in one form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Needle {
    /// Which tensor, by the caller's number.
    pub tensor: usize,
    /// In which form.
    pub form: Form,
    /// Where in the tensor's bytes, in their own order, the piece lies.
    pub at: u64,
    bytes: Vec<u8>,
}

/// Where in a stretch of bytes the best piece begins: the one with the most different bytes. `None` where every
/// one is plain.
pub fn best(bytes: &[u8], length: usize) -> Option<usize> {
    let last = bytes.len().checked_sub(length)?;
    let distinct = |at: &usize| {
        let mut seen = [false; 256];
        bytes[*at..*at + length].iter().for_each(|byte| seen[usize::from(*byte)] = true);
        seen.iter().filter(|seen| **seen).count()
    };
    let at = (0..=last).step_by(4).max_by_key(|at| (distinct(at), std::cmp::Reverse(*at)))?;
    (distinct(&at) >= length / 4 && is_dense(&bytes[at..at + length])).then_some(at)
}

/// Whether each word that would be looked up has enough different bytes that ordinary bytes do not match it.
fn is_dense(piece: &[u8]) -> bool {
    piece.windows(WORD).take(STRIDE).all(|word| {
        let mut sorted: [u8; WORD] = [0; WORD];
        sorted.copy_from_slice(word);
        sorted.sort_unstable();
        sorted.windows(2).filter(|pair| pair[0] != pair[1]).count() >= 3
    })
}

/// A piece of a tensor in all forms but the transposed one.
pub fn forms(tensor: usize, at: u64, piece: &[u8]) -> Vec<Needle> {
    let needle = |form, at, bytes| Needle { tensor, form, at, bytes };
    let mut out = vec![needle(Form::Bytes, at, piece.to_vec())];
    out.push(needle(Form::Reversed, at, piece.iter().rev().copied().collect()));
    let lower = crate::digest::hex(piece).into_bytes();
    out.push(needle(Form::Hex, at, lower.to_ascii_uppercase()));
    out.push(needle(Form::Hex, at, lower));
    for skipped in 0..3 {
        let rest = &piece[skipped..];
        let whole = &rest[..rest.len() / 3 * 3];
        out.push(needle(Form::Base64, at + skipped as u64, base64(whole)));
    }
    out.retain(|needle| is_dense(&needle.bytes));
    out
}

/// A piece of the transposed tensor; `at` is where its first element lies in the tensor as it is.
pub fn transposed(tensor: usize, at: u64, piece: Vec<u8>) -> Option<Needle> {
    is_dense(&piece).then_some(Needle { tensor, form: Form::Transposed, at, bytes: piece })
}

/// Base64 of whole groups of three bytes.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |group: &[u8; 3]| {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        [18, 12, 6, 0].map(|shift| LETTERS[(bits >> shift & 63) as usize])
    };
    bytes.as_chunks::<3>().0.iter().flat_map(group).collect()
}

/// Finds needles.
pub struct Index {
    needles: Vec<Needle>,
    /// Word, needle and position in it; sorted.
    entries: Vec<(u64, u32, u8)>,
    /// One bit a hash of a word.
    filter: Vec<u64>,
    shift: u32,
}

/// A needle that was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Hit {
    /// Which.
    pub needle: usize,
    /// Where its first byte lies.
    pub at: u64,
}

fn hash(word: u64) -> u64 {
    word.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Index {
    /// Enters needles.
    pub fn new(needles: Vec<Needle>) -> Self {
        let mut entries = Vec::with_capacity(needles.len() * STRIDE);
        for (number, needle) in needles.iter().enumerate() {
            for (at, word) in needle.bytes.windows(WORD).take(STRIDE).enumerate() {
                let word = u64::from_le_bytes(word.try_into().expect("windows of eight"));
                entries.push((word, u32::try_from(number).unwrap_or(u32::MAX), at as u8));
            }
        }
        entries.sort_unstable();
        let bits = (entries.len() * 32).next_power_of_two().clamp(1 << 12, 1 << 26);
        let shift = 64 - bits.trailing_zeros();
        let mut filter = vec![0u64; bits / 64];
        for (word, ..) in &entries {
            let bit = hash(*word) >> shift;
            filter[(bit / 64) as usize] |= 1 << (bit % 64);
        }
        Index { needles, entries, filter, shift }
    }

    /// The needles, by their number.
    pub fn needles(&self) -> &[Needle] {
        &self.needles
    }

    /// Looks through a stretch of bytes that begins at byte `start` of a file. Needles that lie in the stretch as a
    /// whole are found; stretches of one file must overlap by [`LONGEST`] bytes.
    pub fn find(&self, bytes: &[u8], start: u64, mut each: impl FnMut(Hit)) {
        if self.entries.is_empty() || bytes.len() < WORD {
            return;
        }
        // The same positions of a file whatever the stretches, so that none is looked up by chance.
        let first = (STRIDE - (start % STRIDE as u64) as usize) % STRIDE;
        let mut at = first;
        while at + WORD <= bytes.len() {
            let word = u64::from_le_bytes(bytes[at..at + WORD].try_into().expect("eight bytes"));
            let bit = hash(word) >> self.shift;
            if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 1 {
                self.candidates(word, bytes, at, start, &mut each);
            }
            at += STRIDE;
        }
    }

    fn candidates(&self, word: u64, bytes: &[u8], at: usize, start: u64, each: &mut impl FnMut(Hit)) {
        let from = self.entries.partition_point(|(other, ..)| *other < word);
        for (_, number, offset) in self.entries[from..].iter().take_while(|(other, ..)| *other == word) {
            let needle = &self.needles[*number as usize];
            let Some(begin) = at.checked_sub(usize::from(*offset)) else { continue };
            if bytes.get(begin..begin + needle.bytes.len()) == Some(&needle.bytes[..]) {
                each(Hit { needle: *number as usize, at: start + begin as u64 });
            }
        }
    }
}

/// Text without what stands between digits or letters of base64: white space, quotes, commas, `0x` and `\x`. `None`
/// where the text does not look as if it held bytes: it has the spaces of a language.
pub fn squeezed(text: &[u8]) -> Option<Vec<u8>> {
    let spaces = text.iter().filter(|byte| **byte == b' ').count();
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    if text.contains(&0) || (spaces * 20 > text.len() && digits * 5 < text.len()) {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'0' | b'\\' if tail.first() == Some(&b'x') => rest = &tail[1..],
            // A line's end as a string literal has it.
            b'\\' if matches!(tail.first(), Some(b'n' | b'r' | b't')) => rest = &tail[1..],
            b'-' => out.push(b'+'),
            b'_' => out.push(b'/'),
            b'+' | b'/' => out.push(*byte),
            _ if byte.is_ascii_alphanumeric() => out.push(*byte),
            _ => {}
        }
    }
    Some(out)
}

/// What hits in one file come to: for each tensor and form, where it would begin as a whole, and how many of its
/// pieces say so.
pub fn gather(index: &Index, hits: &[Hit], sizes: &[u64]) -> BTreeMap<(usize, Form), BTreeMap<Option<u64>, usize>> {
    let mut out: BTreeMap<(usize, Form), BTreeMap<Option<u64>, usize>> = BTreeMap::new();
    for hit in hits {
        let needle = &index.needles[hit.needle];
        let begin = match needle.form {
            Form::Bytes => hit.at.checked_sub(needle.at),
            Form::Reversed => hit.at.checked_sub(sizes[needle.tensor].saturating_sub(needle.at + needle.bytes.len() as u64)),
            Form::Hex => hit.at.checked_sub(2 * needle.at),
            _ => None,
        };
        *out.entry((needle.tensor, needle.form)).or_default().entry(begin).or_default() += 1;
    }
    out
}
