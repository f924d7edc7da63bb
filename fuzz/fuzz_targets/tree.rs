#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    podkit_fuzz::bounded(
        |input| podkit::fuzzing::tree(input, podkit_fuzz::scratch()),
        input,
        4 << 20,
        1024,
    );
});
