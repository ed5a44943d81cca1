//! Hands the fuzzer's bytes to `althing_fuzz::answer`, which says what must hold for them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| althing_fuzz::answer::check(data));
