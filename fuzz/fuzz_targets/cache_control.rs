#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headgate_fuzz::cache_control::target(data));
