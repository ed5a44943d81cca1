//! Hands the fuzzer's bytes to `althing_fuzz::form`, which says what must hold for them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| althing_fuzz::form::check(data));
