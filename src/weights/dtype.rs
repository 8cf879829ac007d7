//! Dtype: what one element of a tensor is, in safetensors and in GGUF, from one table.
//!
//! Layer 1 (documents): pure. GGUF's quantised types come in blocks; a plain type's block is one element. A
//! type that both formats know has one name, so that its tensors can be compared. Must never guess: a type
//! that is not in the table is refused by the readers.

use std::fmt;

/// The type of a tensor's elements: a row of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dtype(u8);

/// How the bits of an element say "not a number" and "infinite".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Float {
    /// IEEE-like in 16 bits; the mask of the exponent (F16, BF16).
    Bits16(u16),
    /// IEEE-like in 32 bits: F32, and each half of a C64.
    Bits32,
    /// IEEE in 64 bits.
    Bits64,
    /// E5M2: IEEE-like in 8 bits.
    E5m2,
    /// E4M3FN: one NaN of each sign, no infinity.
    E4m3fn,
    /// The FNUZ forms: 0x80 is the only NaN, no infinity.
    Fnuz,
    /// E8M0: 0xff is the only NaN, no infinity.
    E8m0,
}

struct Row {
    name: &'static str,
    /// Elements in a block.
    block: u64,
    /// Bits of a block.
    bits: u64,
    /// GGUF's number for it.
    ggml: Option<u32>,
    /// Whether safetensors has it, under this name.
    safe: bool,
    float: Option<Float>,
}

const fn plain(name: &'static str, bits: u64, ggml: Option<u32>, float: Option<Float>) -> Row {
    Row { name, block: 1, bits, ggml, safe: true, float }
}

const fn quantised(name: &'static str, ggml: u32, block: u64, bytes: u64) -> Row {
    Row { name, block, bits: bytes * 8, ggml: Some(ggml), safe: false, float: None }
}

const TABLE: &[Row] = &[
    plain("BOOL", 8, None, None),
    plain("U8", 8, None, None),
    plain("I8", 8, Some(24), None),
    plain("U16", 16, None, None),
    plain("I16", 16, Some(25), None),
    plain("U32", 32, None, None),
    plain("I32", 32, Some(26), None),
    plain("U64", 64, None, None),
    plain("I64", 64, Some(27), None),
    plain("F4", 4, None, None),
    plain("F6_E2M3", 6, None, None),
    plain("F6_E3M2", 6, None, None),
    plain("F8_E5M2", 8, None, Some(Float::E5m2)),
    plain("F8_E4M3", 8, None, Some(Float::E4m3fn)),
    plain("F8_E5M2FNUZ", 8, None, Some(Float::Fnuz)),
    plain("F8_E4M3FNUZ", 8, None, Some(Float::Fnuz)),
    plain("F8_E8M0", 8, None, Some(Float::E8m0)),
    plain("F16", 16, Some(1), Some(Float::Bits16(0x7c00))),
    plain("BF16", 16, Some(30), Some(Float::Bits16(0x7f80))),
    plain("F32", 32, Some(0), Some(Float::Bits32)),
    plain("F64", 64, Some(28), Some(Float::Bits64)),
    plain("C64", 64, None, Some(Float::Bits32)),
    quantised("Q4_0", 2, 32, 18),
    quantised("Q4_1", 3, 32, 20),
    quantised("Q5_0", 6, 32, 22),
    quantised("Q5_1", 7, 32, 24),
    quantised("Q8_0", 8, 32, 34),
    quantised("Q8_1", 9, 32, 36),
    quantised("Q2_K", 10, 256, 84),
    quantised("Q3_K", 11, 256, 110),
    quantised("Q4_K", 12, 256, 144),
    quantised("Q5_K", 13, 256, 176),
    quantised("Q6_K", 14, 256, 210),
    quantised("Q8_K", 15, 256, 292),
    quantised("IQ2_XXS", 16, 256, 66),
    quantised("IQ2_XS", 17, 256, 74),
    quantised("IQ3_XXS", 18, 256, 98),
    quantised("IQ1_S", 19, 256, 50),
    quantised("IQ4_NL", 20, 32, 18),
    quantised("IQ3_S", 21, 256, 110),
    quantised("IQ2_S", 22, 256, 82),
    quantised("IQ4_XS", 23, 256, 136),
    quantised("IQ1_M", 29, 256, 56),
    quantised("TQ1_0", 34, 256, 54),
    quantised("TQ2_0", 35, 256, 66),
    quantised("MXFP4", 39, 32, 17),
];

impl Dtype {
    fn find(wanted: impl Fn(&Row) -> bool) -> Option<Self> {
        TABLE.iter().position(wanted).map(|at| Self(at as u8))
    }

    fn row(self) -> &'static Row {
        &TABLE[usize::from(self.0)]
    }

    /// By the name that listings use, which is safetensors' own where it has the type, else ggml's.
    pub fn named(name: &str) -> Option<Self> {
        Self::find(|row| row.name == name)
    }

    /// By safetensors' name.
    pub fn of_safetensors(name: &str) -> Option<Self> {
        Self::find(|row| row.safe && row.name == name)
    }

    /// By ggml's number.
    pub fn of_ggml(number: u32) -> Option<Self> {
        Self::find(|row| row.ggml == Some(number))
    }

    /// The name that listings use.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether elements come in blocks that share a scale.
    pub fn is_quantised(self) -> bool {
        self.row().block > 1
    }

    /// How NaN and infinity look; `None` where an element cannot be either, or where that is not looked for
    /// (blocks that share a scale).
    pub fn float(self) -> Option<Float> {
        self.row().float
    }

    /// Bytes of a tensor of this shape, outermost dimension first. `None` where the number does not fit 64 bits,
    /// ends inside a byte, or a row ends inside a block.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let row = self.row();
        if row.block > 1 && shape.last().is_none_or(|inner| inner % row.block != 0) {
            return None;
        }
        let bits = u128::from(elements(shape)? / row.block) * u128::from(row.bits);
        if bits % 8 == 0 { u64::try_from(bits / 8).ok() } else { None }
    }
}

/// The product of a shape's dimensions; 1 for a scalar. `None` where it does not fit 64 bits, even if a
/// dimension of 0 would make it 0: other readers multiply in another order.
pub fn elements(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().filter(|n| **n > 0).try_fold(1u64, |product, n| product.checked_mul(*n))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_unique() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(Dtype::named(row.name), Some(Dtype(at as u8)));
            if let Some(number) = row.ggml {
                assert_eq!(Dtype::of_ggml(number), Some(Dtype(at as u8)), "{}", row.name);
            }
        }
        assert_eq!(Dtype::of_safetensors("Q4_0"), None);
        assert_eq!(Dtype::of_ggml(4), None, "Q4_2 was removed from ggml");
    }

    #[test]
    fn sizes_are_exact_or_refused() {
        let bytes = |name: &str, shape: &[u64]| Dtype::named(name).unwrap().bytes(shape);
        assert_eq!(bytes("F32", &[]), Some(4));
        assert_eq!(bytes("F32", &[3, 0]), Some(0));
        assert_eq!(bytes("BF16", &[3, 5]), Some(30));
        assert_eq!(bytes("F4", &[3, 2]), Some(3));
        assert_eq!(bytes("F4", &[3]), None);
        assert_eq!(bytes("Q4_0", &[2, 64]), Some(72));
        assert_eq!(bytes("Q4_0", &[64, 2]), None);
        assert_eq!(bytes("Q4_0", &[]), None);
        assert_eq!(bytes("U8", &[1 << 32, 1 << 32]), None);
        assert_eq!(bytes("U8", &[0, 1 << 32, 1 << 32]), None);
        assert_eq!(bytes("F64", &[1 << 62]), None);
        assert_eq!(bytes("F64", &[1 << 60]), Some(1 << 63));
    }
}
