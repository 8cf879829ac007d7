//! See `pack_fuzz::program`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::program(bytes));
