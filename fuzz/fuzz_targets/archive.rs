#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    podkit_fuzz::bounded(podkit_agent::fuzzing::archive, input, 4 << 20, 4096);
});
