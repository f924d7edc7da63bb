//! Where the kernel begins, and what the compiler expects of a C library.

use core::{arch::global_asm, ffi::CStr, ptr};

// The kernel leaves the number of arguments, the arguments and the environment on the stack.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {begin}",
    "ud2",
    begin = sym begin,
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x30, #0",
    "mov x0, sp",
    "bl {begin}",
    "brk #1",
    begin = sym begin,
);

/// Arguments and environment as the kernel left them; they live as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    arguments: *const *const core::ffi::c_char,
    count: usize,
}

impl Start {
    /// The argument at a place; the program's own name is at 0.
    pub(crate) fn argument(self, place: usize) -> Option<&'static CStr> {
        if place >= self.count {
            return None;
        }
        // SAFETY: the kernel put `count` pointers there.
        let argument = unsafe { *self.arguments.wrapping_add(place) };
        // SAFETY: each of them points to a C string that nobody changes.
        Some(unsafe { CStr::from_ptr(argument) })
    }

    /// The entries `KEY=VALUE` of the environment.
    pub(crate) fn environment(self) -> impl Iterator<Item = &'static CStr> {
        // The list begins after the null pointer that ends the arguments.
        let mut next = self.arguments.wrapping_add(self.count + 1);
        core::iter::from_fn(move || {
            // SAFETY: `next` never passes the null pointer that ends the list.
            let entry = unsafe { *next };
            if entry.is_null() {
                return None;
            }
            next = next.wrapping_add(1);
            // SAFETY: each entry is a C string that nobody changes.
            Some(unsafe { CStr::from_ptr(entry) })
        })
    }
}

extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: the kernel put the number of arguments on top of the stack.
    let count = unsafe { *stack };
    crate::main(Start {
        arguments: stack.wrapping_add(1).cast(),
        count,
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    super::container::exit_group(134)
}

/// Named by the compiled core library; never called, since a panic ends the process.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Named by the compiled core library; never called, since a panic ends the process.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() {}

// What the compiler calls to move and compare bytes. Each is written so that the compiler does not
// see a loop that it would replace by a call of the very same function.

#[cfg(target_arch = "x86_64")]
unsafe fn move_up(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller vouches for both ranges.
    unsafe {
        core::arch::asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _,
            inout("rsi") from => _, options(nostack, preserves_flags));
    }
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn move_up(to: *mut u8, from: *const u8, count: usize) {
    for at in 0..count {
        // SAFETY: the caller vouches for both ranges; volatile, so that it stays a loop.
        let byte = unsafe { ptr::read_volatile(from.wrapping_add(at)) };
        // SAFETY: as above.
        unsafe { ptr::write_volatile(to.wrapping_add(at), byte) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the contract of memcpy.
    unsafe { move_up(to, from, count) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: the contract of memmove; the target does not begin inside the source.
        unsafe { move_up(to, from, count) };
        return to;
    }
    for at in (0..count).rev() {
        // SAFETY: the contract of memmove; volatile, so that it stays a loop.
        let byte = unsafe { ptr::read_volatile(from.wrapping_add(at)) };
        // SAFETY: as above.
        unsafe { ptr::write_volatile(to.wrapping_add(at), byte) };
    }
    to
}

#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    // SAFETY: the contract of memset.
    unsafe {
        core::arch::asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
            in("eax") byte, options(nostack, preserves_flags));
    }
    to
}

#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for at in 0..count {
        // SAFETY: the contract of memset; volatile, so that it stays a loop.
        unsafe { ptr::write_volatile(to.wrapping_add(at), byte.to_le_bytes()[0]) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the contract of memcmp; volatile, so that it stays a loop.
        let one = unsafe { ptr::read_volatile(left.wrapping_add(at)) };
        // SAFETY: as above.
        let other = unsafe { ptr::read_volatile(right.wrapping_add(at)) };
        if one != other {
            return i32::from(one) - i32::from(other);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, count) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the contract of strlen; volatile, so that it stays a loop.
    while unsafe { ptr::read_volatile(text.wrapping_add(length)) } != 0 {
        length += 1;
    }
    length
}
