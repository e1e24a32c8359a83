#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headgate_fuzz::path_norm::target(data));
