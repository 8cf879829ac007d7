//! See `pack_fuzz::gguf_file`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::gguf_file(bytes));
