//! Which mutant is on in this process, put into the library by `tests/mutants`. `MTE_MUTANT` has its number; `MTE_MUTANT_REACHED`
//! instead names a file that gets a 1 at the place of every mutant whose code runs, here and in child processes.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU8, Ordering};

const UNREAD: u32 = u32::MAX;
const RECORDING: u32 = u32::MAX - 1;
/// How many mutants there may be at most, and the length of the file.
const MOST: usize = 1 << 20;

static ON: AtomicU32 = AtomicU32::new(UNREAD);
static REACHED: AtomicPtr<AtomicU8> = AtomicPtr::new(std::ptr::null_mut());

/// Whether the mutant is on.
#[inline(always)]
pub fn on(mutant: u32) -> bool {
    let on = ON.load(Ordering::Relaxed);
    if on < RECORDING {
        on == mutant
    } else {
        slow(on, mutant)
    }
}

#[cold]
#[inline(never)]
fn slow(on: u32, mutant: u32) -> bool {
    if on == UNREAD {
        start();
        return self::on(mutant);
    }
    let reached = REACHED.load(Ordering::Acquire);
    if !reached.is_null() && (mutant as usize) < MOST {
        // SAFETY: the mapping is MOST bytes long and is never given up.
        unsafe { &*reached.add(mutant as usize) }.store(1, Ordering::Relaxed);
    }
    false
}

fn start() {
    use std::os::fd::AsRawFd;
    if let Some(path) = std::env::var_os("MTE_MUTANT_REACHED") {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .expect("the file of what is reached");
        // SAFETY: a new mapping of a file that has MOST bytes.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MOST,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert!(map != libc::MAP_FAILED, "the file of what is reached cannot be mapped");
        REACHED.store(map.cast(), Ordering::Release);
        ON.store(RECORDING, Ordering::Release);
    } else {
        let number = std::env::var("MTE_MUTANT").ok().and_then(|text| text.parse().ok());
        // No mutant has the number 0.
        ON.store(number.unwrap_or(0), Ordering::Relaxed);
    }
}
