//! safetensors: the header of a file, read strictly.
//!
//! Layer 1 (documents): pure. A file is a length of 8 bytes, a JSON object of that length, and the tensors'
//! bytes without a gap. The reference reader keeps the last of two tensors of one name; this one refuses, as it
//! refuses keys that it does not know. Must never allocate by a length that the file has not.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use serde::Deserialize;
use serde::de::Deserializer;

use super::json::{Members, said};
use super::{Dtype, Format, Header, MAX_DIMENSIONS, TensorInfo, Value, WeightsError, check_layout, check_name, shown};

/// Bytes a header may have. Real ones have some 100 for each tensor.
pub const MAX_HEADER: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

enum Member {
    Tensor(Wire),
    Metadata(BTreeMap<String, String>),
}

/// The object's members: `__metadata__` is texts, everything else a tensor.
struct Object(Vec<(String, Member)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{Error, MapAccess, Visitor};
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members: Vec<(String, Member)> = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let member = if key == "__metadata__" {
                        if members.iter().any(|(_, member)| matches!(member, Member::Metadata(_))) {
                            return Err(A::Error::custom("`__metadata__` is there twice"));
                        }
                        Member::Metadata(map.next_value::<Members<String>>()?.0.into_iter().collect())
                    } else {
                        Member::Tensor(map.next_value()?)
                    };
                    members.push((key, member));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads the header of a file of `length` bytes, from its first byte.
pub fn header(reader: &mut (impl Read + Seek), length: u64) -> Result<Header, WeightsError> {
    let (start, text) = text(reader, length)?;
    let Object(members) =
        serde_json::from_str(&text).map_err(|error| WeightsError::form(format!("the header: {}", said(&error))))?;
    drop(text);
    let (mut tensors, mut metadata) = (Vec::new(), Vec::new());
    for (name, member) in members {
        match member {
            Member::Tensor(wire) => tensors.push(tensor(name, wire, start)?),
            Member::Metadata(texts) => metadata.extend(texts.into_iter().map(|(key, text)| (key, Value::Text(text)))),
        }
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(WeightsError::tensor(pair[0], "is there twice"));
    }
    check_layout(&mut tensors, start, length, 1)?;
    Ok(Header { format: Format::Safetensors, tensors, metadata })
}

/// Where the tensors' bytes begin, and the header's text.
fn text(reader: &mut (impl Read + Seek), length: u64) -> Result<(u64, String), WeightsError> {
    if length < 8 {
        return Err(WeightsError::form(format!("expected the 8 bytes of the header's length, found {length}")));
    }
    reader.seek(SeekFrom::Start(0))?;
    let mut raw = [0; 8];
    reader.read_exact(&mut raw)?;
    let size = u64::from_le_bytes(raw);
    if size > length - 8 {
        return Err(WeightsError::form(format!(
            "the header: expected {size} bytes, found {} to the end of the file",
            length - 8
        )));
    }
    if size > MAX_HEADER {
        return Err(WeightsError::form(format!("the header: expected at most {MAX_HEADER} bytes, found {size}")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    reader.read_exact(&mut bytes)?;
    // The format asks for `{` first, and for spaces alone as padding.
    if bytes.first() != Some(&b'{') {
        return Err(WeightsError::form("the header: expected `{` as its first byte"));
    }
    if !bytes.trim_ascii_end().ends_with(b"}") || bytes.iter().rev().take_while(|byte| **byte != b'}').any(|byte| *byte != b' ') {
        return Err(WeightsError::form("the header: expected `}` and spaces as its end"));
    }
    let text = String::from_utf8(bytes).map_err(|_| WeightsError::form("the header: expected UTF-8"))?;
    Ok((8 + size, text))
}

fn tensor(name: String, wire: Wire, start: u64) -> Result<TensorInfo, WeightsError> {
    check_name(&name)?;
    let wrong = |what: String| WeightsError::tensor(&name, what);
    let Some(dtype) = Dtype::of_safetensors(&wire.dtype) else {
        return Err(wrong(format!("unknown dtype `{}`", shown(&wire.dtype))));
    };
    if wire.shape.len() > MAX_DIMENSIONS {
        return Err(wrong(format!("expected at most {MAX_DIMENSIONS} dimensions, found {}", wire.shape.len())));
    }
    let (begin, end) = wire.data_offsets;
    let Some(bytes) = end.checked_sub(begin) else {
        return Err(wrong(format!("expected an end behind its beginning, found {begin} to {end}")));
    };
    match dtype.bytes(&wire.shape) {
        Some(expected) if expected == bytes => {}
        Some(expected) => {
            return Err(wrong(format!("{dtype} {:?}: expected {expected} bytes, found {bytes}", wire.shape)));
        }
        None => return Err(wrong(format!("{dtype} {:?} is no whole number of bytes that 64 bits hold", wire.shape))),
    }
    let Some(offset) = start.checked_add(begin) else {
        return Err(wrong(format!("its offset {begin} is beyond 64 bits")));
    };
    Ok(TensorInfo { name, dtype, shape: wire.shape, offset, bytes })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::testing::{safe, safe_raw};
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<Header, WeightsError> {
        header(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[track_caller]
    fn refused(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_sound_file_is_read() {
        let bytes = safe(&[
            ("b", "F32", &[2, 1], &[1; 8]),
            ("a", "U8", &[3], b"abc"),
            ("s", "BF16", &[], &[0; 2]),
            ("z", "I8", &[0], b""),
        ]);
        let header = read(&bytes).unwrap();
        let names: Vec<&str> = header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["b", "a", "s", "z"]);
        let a = &header.tensors[1];
        assert_eq!(&bytes[a.offset as usize..(a.offset + a.bytes) as usize], b"abc");
        assert_eq!((header.parameters(), header.bytes()), (6, 13));
    }

    #[test]
    fn an_empty_file_and_one_with_metadata_and_padding_are_read() {
        assert!(read(&safe_raw("{}", b"")).unwrap().tensors.is_empty());
        let header = read(&safe_raw("{\"__metadata__\":{\"format\":\"pt\"}}    ", b"")).unwrap();
        assert_eq!(header.metadata, [("format".to_owned(), Value::Text("pt".to_owned()))]);
    }

    #[test]
    fn a_header_that_is_not_one_is_refused() {
        assert_eq!(refused(b"1234567"), "expected the 8 bytes of the header's length, found 7");
        let huge = [&(1u64 << 63).to_le_bytes()[..], b"{}"].concat();
        assert_eq!(refused(&huge), "the header: expected 9223372036854775808 bytes, found 2 to the end of the file");
        assert_eq!(refused(&safe_raw("", b"")), "the header: expected `{` as its first byte");
        assert_eq!(refused(&safe_raw(" {}", b"")), "the header: expected `{` as its first byte");
        assert_eq!(refused(&safe_raw("{}\n", b"")), "the header: expected `}` and spaces as its end");
        assert_eq!(refused(&safe_raw("{}\0\0", b"")), "the header: expected `}` and spaces as its end");
        assert!(refused(&safe_raw("{} }", b"")).starts_with("the header: trailing characters"));
        let not_text = [&3u64.to_le_bytes()[..], b"{\xff}"].concat();
        assert_eq!(refused(&not_text), "the header: expected UTF-8");
        let mut bomb = vec![b' '; 8 + MAX_HEADER as usize + 1];
        bomb[..8].copy_from_slice(&(MAX_HEADER + 1).to_le_bytes());
        assert_eq!(refused(&bomb), "the header: expected at most 16777216 bytes, found 16777217");
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(refused(&safe_raw(&format!("{deep}}}"), b"")).starts_with("the header: "));
    }

    #[test]
    fn names_are_unique_and_can_be_shown() {
        let one = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#;
        let two = r#""a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}"#;
        assert_eq!(refused(&safe_raw(&format!("{{{one},{two}}}"), b"xy")), "tensor `a`: is there twice");
        let escaped = two.replace("\"a\"", "\"\\u0061\"");
        assert_eq!(refused(&safe_raw(&format!("{{{one},{escaped}}}"), b"xy")), "tensor `a`: is there twice");
        let meta = r#"{"__metadata__":{"a":"1","a":"2"}}"#;
        assert!(refused(&safe_raw(meta, b"")).contains("`a` is there twice"));
        assert!(refused(&safe_raw(r#"{"__metadata__":{},"__metadata__":{}}"#, b"")).contains("`__metadata__` is there twice"));
        let field = r#"{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}"#;
        assert!(refused(&safe_raw(field, b"x")).contains("duplicate field `dtype`"));
        assert_eq!(refused(&safe(&[("a\n", "U8", &[1], b"x")])), "tensor `a\\n`: expected a name without control characters");
        assert_eq!(refused(&safe(&[("", "U8", &[1], b"x")])), "tensor ``: expected a name of 1 to 1024 bytes, found 0");
    }

    #[test]
    fn tensors_lie_as_they_say() {
        let tensor = |offsets: &str, shape: &str| format!(r#"{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}"#);
        let file = |a: (&str, &str), b: (&str, &str), data: &[u8]| {
            refused(&safe_raw(&format!(r#"{{"a":{},"b":{}}}"#, tensor(a.0, a.1), tensor(b.0, b.1)), data))
        };
        assert_eq!(
            file(("[0,2]", "[2]"), ("[1,3]", "[2]"), b"xyz").replace(char::is_numeric, "N"),
            "tensor `b`: overlaps the tensor before it, which ends at byte NNN"
        );
        assert_eq!(file(("[0,1]", "[1]"), ("[2,3]", "[1]"), b"xyz"), "tensor `b`: 1 bytes before it belong to no tensor");
        assert_eq!(file(("[1,2]", "[1]"), ("[2,3]", "[1]"), b"xyz"), "tensor `a`: 1 bytes before it belong to no tensor");
        assert_eq!(file(("[0,1]", "[1]"), ("[1,2]", "[1]"), b"xyz"), "1 bytes behind the last tensor belong to none");
        assert!(file(("[0,1]", "[1]"), ("[1,4]", "[3]"), b"xyz").starts_with("tensor `b`: expected 3 bytes at byte "));
        assert_eq!(
            file(("[0,1]", "[1]"), ("[3,1]", "[2]"), b"xyz"),
            "tensor `b`: expected an end behind its beginning, found 3 to 1"
        );
        assert_eq!(file(("[0,1]", "[1]"), ("[1,3]", "[3]"), b"xyz"), "tensor `b`: U8 [3]: expected 3 bytes, found 2");
        let end = u64::MAX;
        let far = format!("[{},{end}]", end - 1);
        assert!(file(("[0,1]", "[1]"), (&far, "[1]"), b"xyz").contains("beyond 64 bits"));
    }

    #[test]
    fn dtypes_and_shapes_that_nobody_holds_are_refused() {
        assert_eq!(refused(&safe(&[("a", "F128", &[1], &[0; 16])])), "tensor `a`: unknown dtype `F128`");
        assert_eq!(refused(&safe(&[("a", "Q4_0", &[32], &[0; 18])])), "tensor `a`: unknown dtype `Q4_0`");
        let overflow = r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        assert!(refused(&safe_raw(overflow, b"")).ends_with("is no whole number of bytes that 64 bits hold"));
        let negative = r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#;
        assert!(refused(&safe_raw(negative, &[0; 4])).starts_with("the header: invalid value"));
        let rank = format!(r#"{{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[0,1]}}}}"#, ["1"; 33].join(","));
        assert_eq!(refused(&safe_raw(&rank, b"x")), "tensor `a`: expected at most 32 dimensions, found 33");
        let more = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"code":"x"}}"#;
        assert!(refused(&safe_raw(more, b"x")).contains("unknown field `code`"));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes));
            drop(read(&safe_raw(&format!("{{{}}}", String::from_utf8_lossy(&bytes)), b"")));
        }

        #[test]
        fn a_mutated_file_is_read_or_refused(at in 0usize..400, byte in any::<u8>(), cut in 0usize..400) {
            let mut bytes = safe(&[("b", "F32", &[2, 1], &[1; 8]), ("a", "U8", &[3], b"abc"), ("s", "BF16", &[], &[0; 2])]);
            let length = bytes.len();
            bytes[at % length] = byte;
            for bytes in [&bytes[..], &bytes[..cut % length]] {
                if let Ok(header) = read(bytes) {
                    for tensor in &header.tensors {
                        prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
                    }
                }
            }
        }
    }
}
