//! See `pack_fuzz::index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::index(bytes));
