#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    podkit_fuzz::bounded(podkit::fuzzing::words, input, 4 << 20, 1024);
});
