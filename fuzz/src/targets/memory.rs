//! An allocator that counts what each thread holds, for a bound on what an input may make the library hold.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed; less than 0 if it frees for others.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of them since it was set.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // While a thread ends its counts may be gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        MOST.with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: the system's allocator does it all; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What holds whatever the input: messages of errors, tables, small beginnings.
const FREE_BYTES: usize = 256 << 10;

/// Runs `act`, which on this thread may hold no more than 256 KiB and `per_byte` bytes for each byte of `input` at once.
pub fn bounded<T>(input: &[u8], per_byte: usize, act: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    MOST.set(before);
    let done = act();
    let most = (MOST.get() - before) as usize;
    let bound = FREE_BYTES + per_byte * input.len();
    assert!(
        most <= bound,
        "{most} bytes were held for {} bytes of input; {bound} are the bound",
        input.len()
    );
    done
}
