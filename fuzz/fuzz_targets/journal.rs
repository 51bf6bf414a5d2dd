//! Feeds the fuzzer's bytes to the journal body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    stillpoint_testkit::fuzz::journal(data);
});
