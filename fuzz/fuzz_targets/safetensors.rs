//! See `pack_fuzz::safetensors`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::safetensors(bytes));
