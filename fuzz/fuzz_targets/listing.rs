//! See `pack_fuzz::listing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::listing(bytes));
