//! See `pack_fuzz::competition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::competition(bytes));
