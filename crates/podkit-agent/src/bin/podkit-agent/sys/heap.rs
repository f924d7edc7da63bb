//! Memory for one thread: small blocks of powers of two from chunks, large ones from the kernel.
//!
//! The agent is small when it is idle, so what it touched at its peak must go back: large blocks do
//! at once. Chunks of small blocks stay; everything that grows with traffic is large.

use core::{
    alloc::{GlobalAlloc, Layout},
    cell::UnsafeCell,
    ptr::{self, NonNull},
};

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};

/// Bytes of the smallest class.
const SMALLEST: usize = 16;

/// Bytes of the largest class; above it every block is a mapping of its own.
const LARGEST: usize = 16 * 1024;

const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;

/// Bytes of a chunk that small blocks are cut from; the kernel gives its pages as they are touched.
const CHUNK: usize = 256 * 1024;

const PAGE: usize = 4096;

struct State {
    free: [*mut Free; CLASSES],
    next: usize,
    end: usize,
}

/// A block that nobody uses holds the way to the next one.
struct Free {
    next: *mut Self,
}

/// The heap of the process.
pub(crate) struct Heap(UnsafeCell<State>);

// SAFETY: the agent has one thread in every one of its processes.
unsafe impl Sync for Heap {}

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State {
    free: [ptr::null_mut(); CLASSES],
    next: 0,
    end: 0,
}));

/// Class of a layout, and `None` when it is a mapping of its own.
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST);
    (size <= LARGEST).then(|| (size.next_power_of_two() / SMALLEST).ilog2() as usize)
}

const fn pages(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

fn map(size: usize) -> *mut u8 {
    // SAFETY: a new private mapping at a place of the kernel's choice.
    let mapped = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            pages(size),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    mapped.map_or(ptr::null_mut(), <*mut _>::cast)
}

impl State {
    fn small(&mut self, class: usize) -> *mut u8 {
        if let Some(head) = self.free.get_mut(class)
            && let Some(block) = NonNull::new(*head)
        {
            // SAFETY: blocks in the list are free and hold a `Free`.
            *head = unsafe { block.as_ref() }.next;
            return block.as_ptr().cast();
        }
        let size = SMALLEST << class;
        // Blocks are aligned to their size, as powers of two are asked to be.
        let mut start = self.next.next_multiple_of(size);
        if start + size > self.end {
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return chunk;
            }
            // What is left of the chunk before is less than one block; it is given up.
            self.end = chunk as usize + CHUNK;
            start = (chunk as usize).next_multiple_of(size);
        }
        self.next = start + size;
        start as *mut u8
    }
}

// SAFETY: blocks never overlap while they are in use, and have the size and alignment that was
// asked for; failure is a null pointer.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE {
            return ptr::null_mut();
        }
        match class_of(layout) {
            // SAFETY: one thread, and no reference to the state outlives a call.
            Some(class) => unsafe { &mut *self.0.get() }.small(class),
            None => map(layout.size()),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same contract.
        let block = unsafe { self.alloc(layout) };
        // A mapping comes zeroed, and its pages are not touched before they are used.
        if !block.is_null() && class_of(layout).is_some() {
            // SAFETY: the block has that many bytes.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: the block is a mapping of this size.
            let _ = unsafe { munmap(block.cast(), pages(layout.size())) };
            return;
        };
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.0.get() };
        if let Some(head) = state.free.get_mut(class) {
            let free: *mut Free = block.cast();
            // SAFETY: the block is free from now on, and large and aligned enough for a `Free`.
            unsafe { free.write(Free { next: *head }) };
            *head = free;
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else {
            return ptr::null_mut();
        };
        match (class_of(layout), class_of(wanted)) {
            (Some(before), Some(after)) if before == after => return block,
            (None, None) => {
                // SAFETY: the block is a mapping of this size, and nobody holds its old address
                // after this call.
                let moved = unsafe {
                    mremap(
                        block.cast(),
                        pages(layout.size()),
                        pages(size),
                        MremapFlags::MAYMOVE,
                    )
                };
                return moved.map_or(ptr::null_mut(), <*mut _>::cast);
            }
            _ => {}
        }
        // SAFETY: a layout with a size that is not zero.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both blocks have that many bytes and do not overlap.
            unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
            // SAFETY: the old block has the old layout and is used no more.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}
