//! GGUF: the header of a file, versions 2 and 3, little-endian.
//!
//! Layer 1 (documents): pure. Metadata is walked, not kept: of arrays remain type and length, of long texts the
//! length. Every count is held against the bytes that are left before anything is done that often. Must never
//! recurse deeper than [`MAX_DEPTH`] nor allocate by a number that the file states.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read, Seek, SeekFrom};

use super::{Dtype, Format, Header, TensorInfo, Value, WeightsError, check_layout, check_name, shown};

/// Bytes of a text of the metadata that is kept.
pub const MAX_TEXT: u64 = 64 << 10;
/// Pairs of metadata a file may have.
pub const MAX_PAIRS: u64 = 10_000;
/// Tensors a file may have.
pub const MAX_TENSORS: u64 = 1 << 18;
/// Arrays within arrays.
pub const MAX_DEPTH: usize = 4;
/// Bytes the whole header may have.
pub const MAX_HEADER: u64 = 256 << 20;
/// Dimensions a tensor of ggml's has at most.
const MAX_DIMS: u32 = 4;

/// Reads the header of a file of `length` bytes, from its first byte. Shapes are turned round: ggml's `ne`
/// begins with the innermost dimension, a listing's shape with the outermost.
pub fn header(reader: &mut (impl Read + Seek), length: u64) -> Result<Header, WeightsError> {
    reader.seek(SeekFrom::Start(0))?;
    let mut file = Walk { inner: BufReader::with_capacity(64 << 10, reader), at: 0, end: length.min(MAX_HEADER) };
    let magic = file.array::<4>("the magic")?;
    if &magic != b"GGUF" {
        return Err(WeightsError::form(format!("expected `GGUF`, found `{}`", magic.escape_ascii())));
    }
    let version = file.u32("the version")?;
    if ![2, 3].contains(&version) {
        let order = if [2, 3].contains(&version.swap_bytes()) { ": a big-endian file" } else { "" };
        return Err(WeightsError::form(format!("expected GGUF version 2 or 3, found {version}{order}")));
    }
    let tensor_count = file.u64("the number of tensors")?;
    let pair_count = file.u64("the number of metadata pairs")?;
    // A tensor takes 24 bytes at least, a pair 13.
    file.plausible("tensors", tensor_count, 24, MAX_TENSORS)?;
    file.plausible("metadata pairs", pair_count, 13, MAX_PAIRS)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..pair_count {
        let key = file.name("a metadata key", 65_535)?;
        let kind = file.u32("a metadata type")?;
        let value = value(&mut file, kind, 0).map_err(|error| match error {
            WeightsError::Form(what) => WeightsError::Form(format!("metadata `{}`: {what}", shown(&key))),
            other => other,
        })?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(WeightsError::form(format!("metadata `{}` is there twice", shown(&key))));
        }
    }
    let align = alignment(&metadata)?;
    let mut tensors = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..tensor_count {
        let tensor = tensor(&mut file, align)?;
        if !names.insert(tensor.name.clone()) {
            return Err(WeightsError::tensor(&tensor.name, "is there twice"));
        }
        tensors.push(tensor);
    }
    // Without tensors the padding before them may be missing.
    let start = file.at.next_multiple_of(align);
    let start = if tensors.is_empty() { start.min(length) } else { start };
    if start > length {
        return Err(WeightsError::form(format!("expected tensors at byte {start}, found the end of the file at byte {length}")));
    }
    for tensor in &mut tensors {
        tensor.offset = match start.checked_add(tensor.offset) {
            Some(offset) => offset,
            None => return Err(WeightsError::tensor(&tensor.name, format!("its offset {} is beyond 64 bits", tensor.offset))),
        };
    }
    check_layout(&mut tensors, start, length, align)?;
    Ok(Header { format: Format::Gguf(version), tensors, metadata: metadata.into_iter().collect() })
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64, WeightsError> {
    match metadata.get("general.alignment") {
        None => Ok(32),
        Some(Value::Whole(n)) if *n >= 8 && *n <= 1 << 20 && n.count_ones() == 1 => Ok(*n as u64),
        Some(other) => {
            Err(WeightsError::form(format!("`general.alignment`: expected a power of two from 8 to 1048576, found {other}")))
        }
    }
}

fn tensor<R: Read + Seek>(file: &mut Walk<R>, align: u64) -> Result<TensorInfo, WeightsError> {
    let name = file.name("a tensor's name", super::MAX_NAME as u64)?;
    check_name(&name)?;
    let wrong = |what: String| WeightsError::tensor(&name, what);
    let dims = file.u32("the number of dimensions")?;
    if dims > MAX_DIMS {
        return Err(wrong(format!("expected at most {MAX_DIMS} dimensions, found {dims}")));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        shape.push(file.u64("a dimension")?);
    }
    shape.reverse();
    let number = file.u32("a tensor's type")?;
    let offset = file.u64("a tensor's offset")?;
    let Some(dtype) = Dtype::of_ggml(number) else {
        return Err(wrong(format!("unknown ggml type {number}")));
    };
    let Some(bytes) = dtype.bytes(&shape) else {
        return Err(wrong(format!("{dtype} {shape:?} is no whole number of blocks, or of bytes that 64 bits hold")));
    };
    if offset % align != 0 {
        return Err(wrong(format!("expected an offset that {align} divides, found {offset}")));
    }
    Ok(TensorInfo { name, dtype, shape, offset, bytes })
}

/// The word and the bytes of a value type; 0 bytes where its length stands in the file.
fn value_type(kind: u32) -> Result<(&'static str, u64), WeightsError> {
    const TYPES: [(&str, u64); 13] = [
        ("u8", 1),
        ("i8", 1),
        ("u16", 2),
        ("i16", 2),
        ("u32", 4),
        ("i32", 4),
        ("f32", 4),
        ("bool", 1),
        ("string", 0),
        ("array", 0),
        ("u64", 8),
        ("i64", 8),
        ("f64", 8),
    ];
    TYPES.get(kind as usize).copied().ok_or_else(|| WeightsError::form(format!("unknown value type {kind}")))
}

/// Reads a value, or walks over it and says what it was.
fn value<R: Read + Seek>(file: &mut Walk<R>, kind: u32, depth: usize) -> Result<Value, WeightsError> {
    let (word, _) = value_type(kind)?;
    Ok(match kind {
        0 => Value::Whole(file.array::<1>(word)?[0].into()),
        1 => Value::Whole(i8::from_le_bytes(file.array(word)?).into()),
        2 => Value::Whole(u16::from_le_bytes(file.array(word)?).into()),
        3 => Value::Whole(i16::from_le_bytes(file.array(word)?).into()),
        4 => Value::Whole(file.u32(word)?.into()),
        5 => Value::Whole(i32::from_le_bytes(file.array(word)?).into()),
        6 => Value::Real(f32::from_le_bytes(file.array(word)?).into()),
        7 => match file.array::<1>(word)?[0] {
            0 => Value::Flag(false),
            1 => Value::Flag(true),
            other => return Err(WeightsError::form(format!("expected a bool of 0 or 1, found {other}"))),
        },
        8 => {
            let bytes = file.u64("a text's length")?;
            if bytes > MAX_TEXT {
                file.skip("a text", bytes)?;
                Value::Long(bytes)
            } else {
                Value::Text(file.text("a text", bytes)?)
            }
        }
        9 => array(file, depth)?,
        10 => Value::Whole(file.u64(word)?.into()),
        11 => Value::Whole(i64::from_le_bytes(file.array(word)?).into()),
        _ => Value::Real(f64::from_le_bytes(file.array(word)?)),
    })
}

fn array<R: Read + Seek>(file: &mut Walk<R>, depth: usize) -> Result<Value, WeightsError> {
    if depth >= MAX_DEPTH {
        return Err(WeightsError::form(format!("arrays lie more than {MAX_DEPTH} deep")));
    }
    let kind = file.u32("an array's type")?;
    let (word, size) = value_type(kind)?;
    let count = file.u64("an array's length")?;
    let least = match kind {
        8 => 8,
        9 => 12,
        _ => size,
    };
    file.plausible(word, count, least, u64::MAX)?;
    match kind {
        8 => {
            for _ in 0..count {
                let bytes = file.u64("a text's length")?;
                file.skip("a text", bytes)?;
            }
        }
        9 => {
            for _ in 0..count {
                array(file, depth + 1)?;
            }
        }
        _ => file.skip("an array", count * size)?,
    }
    Ok(Value::Array(word, count))
}

/// A reader that knows where it is and where it must not go.
struct Walk<R> {
    inner: BufReader<R>,
    at: u64,
    end: u64,
}

impl<R: Read + Seek> Walk<R> {
    /// Refuses to go on where fewer than `bytes` are left.
    fn want(&mut self, what: &str, bytes: u64) -> Result<(), WeightsError> {
        let left = self.end - self.at;
        if bytes > left {
            return Err(WeightsError::form(format!("expected {bytes} bytes of {what} at byte {}, found {left}", self.at)));
        }
        self.at += bytes;
        Ok(())
    }

    /// Refuses a count of things that take `least` bytes each where so many cannot follow.
    fn plausible(&self, what: &str, count: u64, least: u64, most: u64) -> Result<(), WeightsError> {
        let room = (self.end - self.at) / least;
        if count > room || count > most {
            return Err(WeightsError::form(format!("{count} {what}: the file has room for {} at most", room.min(most))));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], WeightsError> {
        self.want(what, N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, WeightsError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, WeightsError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn text(&mut self, what: &str, bytes: u64) -> Result<String, WeightsError> {
        self.want(what, bytes)?;
        let mut text = vec![0; bytes as usize];
        self.inner.read_exact(&mut text)?;
        String::from_utf8(text).map_err(|_| WeightsError::form(format!("{what}: expected UTF-8")))
    }

    fn name(&mut self, what: &str, most: u64) -> Result<String, WeightsError> {
        let bytes = self.u64(what)?;
        if bytes > most {
            return Err(WeightsError::form(format!("{what}: expected at most {most} bytes, found {bytes}")));
        }
        self.text(what, bytes)
    }

    fn skip(&mut self, what: &str, bytes: u64) -> Result<(), WeightsError> {
        self.want(what, bytes)?;
        Ok(self.inner.seek_relative(bytes as i64)?)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::testing::{Gguf, text};
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Header, WeightsError> {
        header(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[track_caller]
    fn refused(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    fn sound() -> Gguf {
        Gguf::new()
            .pair("general.architecture", 8, &text("llama"))
            .pair("llama.block_count", 4, &2u32.to_le_bytes())
            .pair("tokens", 9, &[&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("bc")].concat())
            .pair(
                "nested",
                9,
                &[&9u32.to_le_bytes()[..], &1u64.to_le_bytes(), &0u32.to_le_bytes(), &2u64.to_le_bytes(), b"xy"].concat(),
            )
            .tensor("token_embd.weight", &[32, 2], 2, 0, &[7; 36])
            .tensor("norm", &[3], 0, 64, &[0; 12])
    }

    #[test]
    fn a_sound_file_is_read_and_its_shapes_begin_outermost() {
        let bytes = sound().bytes();
        let header = read(&bytes).unwrap();
        assert_eq!(header.format, Format::Gguf(3));
        let first = &header.tensors[0];
        assert_eq!((first.name.as_str(), first.dtype.name(), &first.shape[..]), ("token_embd.weight", "Q4_0", &[2, 32][..]));
        assert_eq!(&bytes[first.offset as usize..(first.offset + first.bytes) as usize], &[7; 36]);
        assert_eq!(header.tensors[1].offset, first.offset + 64);
        let shown: Vec<String> = header.metadata.iter().map(|(key, value)| format!("{key} {value}")).collect();
        assert_eq!(shown, ["general.architecture \"llama\"", "llama.block_count 2", "nested 1 of array", "tokens 2 of string"]);
        assert_eq!(read(&Gguf { version: 2, ..sound() }.bytes()).unwrap().format, Format::Gguf(2));
        assert!(read(&Gguf::new().bytes()).unwrap().tensors.is_empty());
    }

    #[test]
    fn alignment_is_followed() {
        let with = |n: u32| Gguf::new().pair("general.alignment", 4, &n.to_le_bytes());
        let bytes = Gguf { align: 64, ..with(64) }.tensor("a", &[1], 0, 0, &[0; 4]).tensor("b", &[1], 0, 64, &[1; 4]).bytes();
        assert_eq!(read(&bytes).unwrap().tensors[1].offset % 64, 0);
        for bad in [0, 3, 4, 48, 1 << 21] {
            assert!(refused(&with(bad).bytes()).starts_with("`general.alignment`: expected a power of two"), "{bad}");
        }
        assert!(refused(&sound().tensor("odd", &[1], 0, 97, &[0; 4]).bytes()).contains("an offset that 32 divides, found 97"));
    }

    #[test]
    fn versions_and_magics_that_are_not_read_are_named() {
        assert_eq!(refused(b"GGML\x03\0\0\0"), "expected `GGUF`, found `GGML`");
        assert_eq!(refused(b"GG"), "expected 4 bytes of the magic at byte 0, found 2");
        assert!(refused(&Gguf { version: 1, ..sound() }.bytes()).ends_with("found 1"));
        assert!(refused(&Gguf { version: 3 << 24, ..sound() }.bytes()).ends_with(": a big-endian file"));
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let bytes = sound().bytes();
        let header = read(&bytes).unwrap();
        let last = header.tensors.last().unwrap();
        for cut in 0..(last.offset + last.bytes) as usize {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn counts_that_cannot_be_are_refused_before_they_are_followed() {
        for count in [u64::MAX, 1 << 63, 1 << 40, 1000] {
            let refused = |bytes: Vec<u8>| refused(&bytes);
            assert!(refused(Gguf { tensor_count: Some(count), ..sound() }.bytes()).contains(" tensors: the file has room for"));
            assert!(
                refused(Gguf { pair_count: Some(count), ..sound() }.bytes()).contains(" metadata pairs: the file has room for")
            );
            for kind in [0u32, 8, 9, 12] {
                let array = [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
                assert!(refused(Gguf::new().pair("a", 9, &array).bytes()).contains("the file has room for"), "{kind} {count}");
            }
            assert!(refused(Gguf::new().pair("a", 8, &count.to_le_bytes()).bytes()).contains("bytes of a text at byte"));
        }
        let deep: Vec<u8> = [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(100_000);
        assert_eq!(refused(&Gguf::new().pair("a", 9, &deep).bytes()), "metadata `a`: arrays lie more than 4 deep");
    }

    #[test]
    fn values_and_names_are_strict() {
        assert_eq!(refused(&Gguf::new().pair("a", 7, &[2]).bytes()), "metadata `a`: expected a bool of 0 or 1, found 2");
        assert_eq!(refused(&Gguf::new().pair("a", 13, &[0; 8]).bytes()), "metadata `a`: unknown value type 13");
        assert_eq!(refused(&Gguf::new().pair("a", 0, &[1]).pair("a", 0, &[1]).bytes()), "metadata `a` is there twice");
        let bad = [&1u64.to_le_bytes()[..], b"\xff"].concat();
        assert_eq!(refused(&Gguf::new().pair("a", 8, &bad).bytes()), "metadata `a`: a text: expected UTF-8");
        assert_eq!(refused(&sound().tensor("norm", &[3], 0, 96, &[0; 12]).bytes()), "tensor `norm`: is there twice");
        let long = Gguf::new().pair("a", 8, &text(&"x".repeat(MAX_TEXT as usize + 1))).bytes();
        assert_eq!(read(&long).unwrap().metadata[0].1, Value::Long(MAX_TEXT + 1));
    }

    #[test]
    fn tensors_lie_as_they_say() {
        let with = |dims: &[u64], kind, offset| refused(&sound().tensor("x", dims, kind, offset, &[0; 4]).bytes());
        assert!(with(&[1], 0, 64).contains("overlaps the tensor before it") || with(&[1], 0, 64).contains("tensor `norm`"));
        assert!(with(&[1], 0, 32).contains("overlaps the tensor before it"));
        assert!(with(&[1], 0, 128).contains("bytes before it belong to no tensor"));
        assert!(with(&[1 << 20], 0, 96).contains("found the end of the file"));
        assert!(with(&[1], 0, u64::MAX - 31).contains("beyond 64 bits"));
        assert!(with(&[1], 4, 96).ends_with("unknown ggml type 4"));
        assert!(with(&[16], 2, 96).contains("no whole number of blocks"));
        assert!(with(&[1 << 40, 1 << 40], 0, 96).contains("no whole number of blocks"));
        assert!(with(&[1; 5], 0, 96).ends_with("expected at most 4 dimensions, found 5"));
        let mut longer = sound().bytes();
        longer.extend([0; 64]);
        assert!(refused(&longer).ends_with("bytes behind the last tensor belong to none"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), pairs in 0u64..4) {
            drop(read(&bytes));
            drop(read(&[b"GGUF\x03\0\0\0", &1u64.to_le_bytes()[..], &pairs.to_le_bytes(), &bytes].concat()));
        }

        #[test]
        fn a_mutated_file_is_read_or_refused(at in 0usize..4000, byte in any::<u8>()) {
            let mut bytes = sound().bytes();
            let length = bytes.len();
            bytes[at % length] = byte;
            if let Ok(header) = read(&bytes) {
                for tensor in &header.tensors {
                    prop_assert!(tensor.offset + tensor.bytes <= length as u64);
                }
            }
        }
    }
}
