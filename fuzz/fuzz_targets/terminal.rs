#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    podkit_fuzz::bounded(podkit_agent::fuzzing::terminal, input, 64 << 10, 256);
});
