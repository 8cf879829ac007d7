//! See `pack_fuzz::adapter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::adapter(bytes));
