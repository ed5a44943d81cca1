//! Hands the fuzzer's bytes to `althing_fuzz::entry`, which says what must hold for them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| althing_fuzz::entry::check(data));
