//! What all fuzzers share: the count of the memory that one input takes.
#![warn(missing_docs)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Counts what is held.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: the system's own allocator does all of it; sums are all that is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        if held > MOST.load(Relaxed) {
            MOST.store(held, Relaxed);
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs a target, which may hold so many bytes at once, and for each byte of the input so many more.
///
/// # Panics
/// When it holds more: a claim in the input must not make it reserve what never comes.
pub fn bounded(target: impl FnOnce(&[u8]), input: &[u8], most: usize, each: usize) {
    let before = HELD.load(Relaxed);
    MOST.store(before, Relaxed);
    target(input);
    let held = MOST.load(Relaxed).saturating_sub(before);
    let limit = most + each * input.len();
    assert!(
        held <= limit,
        "{held} bytes for an input of {}, which may take {limit}",
        input.len()
    );
}

/// A directory of this process's own, in memory where there is such a place. Who runs the fuzzer
/// removes it: it is left as the last input left it, for whoever looks into a finding.
#[must_use]
pub fn scratch() -> &'static Path {
    static SCRATCH: LazyLock<PathBuf> = LazyLock::new(|| {
        let memory = Path::new("/dev/shm");
        let place = env::var_os("PODKIT_FUZZ_SCRATCH").map_or_else(
            || {
                if memory.is_dir() {
                    memory.to_owned()
                } else {
                    env::temp_dir()
                }
            },
            PathBuf::from,
        );
        let scratch = place.join(format!("podkit-fuzz-{}", process::id()));
        fs::create_dir(&scratch).expect("a directory for what is made");
        scratch
    });
    &SCRATCH
}
