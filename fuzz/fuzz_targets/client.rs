#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    podkit_fuzz::bounded(podkit::fuzzing::client, input, 16 << 20, 4096);
});
