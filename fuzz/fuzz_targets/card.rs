//! See `pack_fuzz::card`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pack_fuzz::card(bytes));
