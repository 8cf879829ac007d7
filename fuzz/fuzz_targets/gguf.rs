//! Any bytes as a gguf file: the reader refuses, or every tensor lies inside the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pack::weights::gguf::header;

fuzz_target!(|bytes: &[u8]| {
    let length = bytes.len() as u64;
    if let Ok(header) = header(&mut std::io::Cursor::new(bytes), length) {
        assert!(header.tensors.iter().all(|tensor| tensor.offset.checked_add(tensor.bytes).is_some_and(|end| end <= length)));
    }
});
