//! Numbers: how far two tensors of one type and shape are apart, summed up from their bytes.
//!
//! Layer 2 (decisions): pure. Bytes come in blocks that a caller read; sums are doubles, in eight lanes whose
//! order is fixed, so that the same bytes give the same sums on any number of threads. An element that is no
//! finite number on one of the sides enters no sum and is counted. Must never look at a tensor as a whole.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Distance;
use crate::weights::Dtype;

/// How far two tensors of one type and shape are apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Numbers {
    /// Elements.
    pub elements: u64,
    /// Those of them that are equal, bit for bit.
    pub equal: u64,
    /// Largest distance in units of the last place of the type in which it is stored; none for whole numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ulp: Option<u64>,
    /// ‖replayed − claimed‖.
    pub difference: f64,
    /// Elements of the claim that are NaN or infinite.
    pub not_finite_expected: u64,
    /// Elements of the replay that are.
    pub not_finite_found: u64,
    /// Relative to the update, where an input has a tensor of this name, or of what the caller took for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distance: Option<Distance>,
    /// Whether it is one of a LoRA's two matrices, of which only the product counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub factor: bool,
}

impl Numbers {
    /// Whether every element of both is a finite number.
    pub fn is_finite(&self) -> bool {
        self.not_finite_expected == 0 && self.not_finite_found == 0
    }
}

/// A type whose elements are read as numbers here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Element {
    /// IEEE half.
    F16,
    /// The upper half of a single.
    Bf16,
    /// IEEE single.
    F32,
    /// IEEE double.
    F64,
    /// A whole number of this many bytes, or a truth value: equal or not, and no distance.
    Whole(usize),
}

impl Element {
    /// `None` where a type's elements are not looked at one by one: blocks, and floats of 8 bits and less.
    pub fn of(dtype: Dtype) -> Option<Self> {
        Some(match dtype.name() {
            "F16" => Element::F16,
            "BF16" => Element::Bf16,
            "F32" => Element::F32,
            "F64" => Element::F64,
            "BOOL" | "U8" | "I8" => Element::Whole(1),
            "U16" | "I16" => Element::Whole(2),
            "U32" | "I32" => Element::Whole(4),
            "U64" | "I64" => Element::Whole(8),
            _ => return None,
        })
    }

    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Element::F16 | Element::Bf16 => 2,
            Element::F32 => 4,
            Element::F64 => 8,
            Element::Whole(bytes) => bytes,
        }
    }

    /// Whether it is a float.
    pub fn is_float(self) -> bool {
        !matches!(self, Element::Whole(_))
    }

    /// Reads a block into doubles, exactly. Whole numbers give nothing.
    pub fn decode(self, bytes: &[u8], out: &mut Vec<f64>) {
        out.clear();
        match self {
            Element::F16 => out.extend(bytes.as_chunks::<2>().0.iter().map(|raw| f64::from(half(u16::from_le_bytes(*raw))))),
            Element::Bf16 => {
                let wide = |raw: &[u8; 2]| f64::from(f32::from_bits(u32::from(u16::from_le_bytes(*raw)) << 16));
                out.extend(bytes.as_chunks::<2>().0.iter().map(wide));
            }
            Element::F32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|raw| f64::from(f32::from_le_bytes(*raw)))),
            Element::F64 => out.extend(bytes.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw))),
            Element::Whole(_) => {}
        }
    }
}

/// An IEEE half as a single; exact, infinity and NaN too.
fn half(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // 2^112: from the single's bias to the half's, subnormal numbers included.
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = f32::from_bits(magnitude | 0x7f80_0000);
    let value = if bits & 0x7c00 == 0x7c00 { special } else { scaled };
    f32::from_bits(value.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// Elements looked at together: their doubles stay in a core's nearest cache.
pub const BLOCK: usize = 1024;
const LANES: usize = 8;

/// What a part of a tensor adds up to; parts are joined in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// Elements seen.
    pub elements: u64,
    /// Equal, bit for bit.
    pub equal: u64,
    /// Largest distance in units of the last place.
    pub ulp: u64,
    /// NaN or infinite on the claim's side, and on the replay's.
    pub not_finite: [u64; 2],
    /// Of the squared difference.
    pub difference: f64,
    /// Of the squared claimed update, where there is a base.
    pub claimed: f64,
    /// Of the squared replayed update.
    pub replayed: f64,
    /// Of the product of the two updates.
    pub product: f64,
}

impl Sums {
    /// Joins what the next part of the tensor adds up to.
    pub fn join(&mut self, next: &Sums) {
        self.elements += next.elements;
        self.equal += next.equal;
        self.ulp = self.ulp.max(next.ulp);
        for (mine, theirs) in self.not_finite.iter_mut().zip(next.not_finite) {
            *mine += theirs;
        }
        self.difference += next.difference;
        self.claimed += next.claimed;
        self.replayed += next.replayed;
        self.product += next.product;
    }

    /// The distance, where there was a base all along.
    pub fn distance(&self) -> Distance {
        Distance::of(self.difference, self.claimed, self.replayed, self.product)
    }

    /// As a report has them.
    pub fn numbers(&self, element: Element, has_base: bool) -> Numbers {
        let norm = self.difference.max(0.0).sqrt();
        Numbers {
            elements: self.elements,
            equal: self.equal,
            ulp: element.is_float().then_some(self.ulp),
            difference: if norm.is_finite() { norm } else { f64::MAX },
            not_finite_expected: self.not_finite[0],
            not_finite_found: self.not_finite[1],
            distance: (has_base && element.is_float()).then(|| self.distance()),
            factor: false,
        }
    }
}

/// Adds up blocks; keeps its buffers between them.
#[derive(Default)]
pub struct Summer {
    claimed: Vec<f64>,
    replayed: Vec<f64>,
    base: Vec<f64>,
}

impl Summer {
    /// Adds whole elements of both sides, which have the same number of bytes, and of the base, which has the same
    /// number of elements.
    pub fn add(&mut self, element: Element, claimed: &[u8], replayed: &[u8], base: Option<(Element, &[u8])>, sums: &mut Sums) {
        let step = BLOCK * element.bytes();
        let mut bases = base.map(|(kind, bytes)| (kind, bytes.chunks(BLOCK * kind.bytes())));
        for (ours, theirs) in claimed.chunks(step).zip(replayed.chunks(step)) {
            let base = bases.as_mut().and_then(|(kind, chunks)| Some((*kind, chunks.next()?)));
            self.block(element, ours, theirs, base, sums);
        }
    }

    fn block(&mut self, element: Element, ours: &[u8], theirs: &[u8], base: Option<(Element, &[u8])>, sums: &mut Sums) {
        let count = (ours.len() / element.bytes()) as u64;
        sums.elements += count;
        let same = ours == theirs;
        if same {
            sums.equal += count;
        } else {
            let (equal, ulp) = bits(element, ours, theirs);
            sums.equal += equal;
            sums.ulp = sums.ulp.max(ulp);
        }
        if !element.is_float() {
            return;
        }
        let all_finite = finite(element, ours) && (same || finite(element, theirs));
        if same && base.is_none() && all_finite {
            return;
        }
        element.decode(ours, &mut self.claimed);
        element.decode(theirs, &mut self.replayed);
        let base_finite = match base {
            Some((kind, bytes)) => {
                kind.decode(bytes, &mut self.base);
                finite(kind, bytes)
            }
            None => true,
        };
        let has_base = base.is_some();
        if has_base || !all_finite {
            // What the caller gave too little of counts as zero.
            self.base.resize(self.claimed.len(), 0.0);
        }
        if !(all_finite && base_finite) {
            self.leave_out(sums);
        }
        if !has_base {
            self.base.clear();
            sums.difference += square(&self.claimed, &self.replayed);
            return;
        }
        let [difference, claimed, replayed, product] = squares(&self.claimed, &self.replayed, &self.base);
        sums.difference += difference;
        sums.claimed += claimed;
        sums.replayed += replayed;
        sums.product += product;
    }

    /// Counts what is not finite and puts zeros in its place on every side. Where the base alone is not, the claim
    /// takes its place, so that no difference is left out.
    fn leave_out(&mut self, sums: &mut Sums) {
        for ((ours, theirs), base) in self.claimed.iter_mut().zip(&mut self.replayed).zip(&mut self.base) {
            if !ours.is_finite() || !theirs.is_finite() {
                sums.not_finite[0] += u64::from(!ours.is_finite());
                sums.not_finite[1] += u64::from(!theirs.is_finite());
                (*ours, *theirs, *base) = (0.0, 0.0, 0.0);
            } else if !base.is_finite() {
                *base = *ours;
            }
        }
    }
}

fn finite(element: Element, bytes: &[u8]) -> bool {
    match element {
        Element::F16 => none16(bytes, 0x7c00),
        Element::Bf16 => none16(bytes, 0x7f80),
        Element::F32 => bytes.as_chunks::<4>().0.iter().fold(true, |ok, raw| ok & f32::from_le_bytes(*raw).is_finite()),
        Element::F64 => bytes.as_chunks::<8>().0.iter().fold(true, |ok, raw| ok & f64::from_le_bytes(*raw).is_finite()),
        Element::Whole(_) => true,
    }
}

fn none16(bytes: &[u8], exponent: u16) -> bool {
    bytes.as_chunks::<2>().0.iter().fold(true, |ok, raw| ok & (u16::from_le_bytes(*raw) & exponent != exponent))
}

/// Sum of the squared difference.
fn square(claimed: &[f64], replayed: &[f64]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    let (ours, ours_rest) = claimed.as_chunks::<LANES>();
    let (theirs, theirs_rest) = replayed.as_chunks::<LANES>();
    for (ours, theirs) in ours.iter().zip(theirs) {
        for at in 0..LANES {
            let difference = theirs[at] - ours[at];
            lanes[at] += difference * difference;
        }
    }
    let rest = ours_rest.iter().zip(theirs_rest).map(|(ours, theirs)| (theirs - ours) * (theirs - ours));
    lanes.iter().sum::<f64>() + rest.sum::<f64>()
}

/// Sums of the squared difference, of the squared updates and of their product.
fn squares(claimed: &[f64], replayed: &[f64], base: &[f64]) -> [f64; 4] {
    let mut lanes = [[0.0f64; LANES]; 4];
    let mut add = |ours: &[f64; LANES], theirs: &[f64; LANES], base: &[f64; LANES]| {
        for at in 0..LANES {
            let (difference, one, other) = (theirs[at] - ours[at], ours[at] - base[at], theirs[at] - base[at]);
            lanes[0][at] += difference * difference;
            lanes[1][at] += one * one;
            lanes[2][at] += other * other;
            lanes[3][at] += one * other;
        }
    };
    let (ours, ours_rest) = claimed.as_chunks::<LANES>();
    let (theirs, theirs_rest) = replayed.as_chunks::<LANES>();
    let (bases, base_rest) = base.as_chunks::<LANES>();
    for ((ours, theirs), base) in ours.iter().zip(theirs).zip(bases) {
        add(ours, theirs, base);
    }
    let padded = |rest: &[f64]| {
        let mut lanes = [0.0; LANES];
        lanes[..rest.len()].copy_from_slice(rest);
        lanes
    };
    add(&padded(ours_rest), &padded(theirs_rest), &padded(base_rest));
    lanes.map(|lanes| lanes.iter().sum())
}

/// How many elements are equal bit for bit, and the largest distance in units of the last place. Elements that
/// are no finite number have no such distance.
fn bits(element: Element, ours: &[u8], theirs: &[u8]) -> (u64, u64) {
    macro_rules! judged {
        ($word:ty, $wide:ty, $exponent:expr) => {{
            const BYTES: usize = size_of::<$word>();
            let (mut equal, mut most): (u64, $wide) = (0, 0);
            for (one, other) in ours.as_chunks::<BYTES>().0.iter().zip(theirs.as_chunks::<BYTES>().0) {
                let (one, other) = (<$word>::from_le_bytes(*one), <$word>::from_le_bytes(*other));
                equal += u64::from(one == other);
                // On one line from the lowest number to the highest; both zeros are 0.
                let line = |bits: $word| {
                    let magnitude = (bits & (<$word>::MAX >> 1)) as $wide;
                    if bits >> (<$word>::BITS - 1) == 1 { -magnitude } else { magnitude }
                };
                let counts = one & $exponent != $exponent && other & $exponent != $exponent;
                let apart = (line(one) - line(other)).abs();
                most = most.max(if counts { apart } else { 0 });
            }
            (equal, u64::try_from(most).unwrap_or(u64::MAX))
        }};
    }
    match element {
        Element::F16 => judged!(u16, i32, 0x7c00u16),
        Element::Bf16 => judged!(u16, i32, 0x7f80u16),
        Element::F32 => judged!(u32, i64, 0x7f80_0000u32),
        Element::F64 => judged!(u64, i128, 0x7ff0u64 << 48),
        Element::Whole(bytes) => {
            let pairs = ours.chunks_exact(bytes).zip(theirs.chunks_exact(bytes));
            (pairs.filter(|(one, other)| one == other).count() as u64, 0)
        }
    }
}
