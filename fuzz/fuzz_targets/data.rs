//! See `pack_fuzz::data`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::data(bytes));
