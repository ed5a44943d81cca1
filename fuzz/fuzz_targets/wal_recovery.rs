//! Hands the fuzzer's bytes to `althing_fuzz::wal_recovery`, which says what must hold for them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| althing_fuzz::wal_recovery::check(data));
