//! Feeds the fuzzer's bytes to the snapshot body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    stillpoint_testkit::fuzz::snapshot(data);
});
