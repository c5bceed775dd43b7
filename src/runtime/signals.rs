//! The signal handlers of `enableGracefulShutdown`, installed only when the caller asks.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering::SeqCst};

use super::{fork, thread};

/// Write end of the pipe from the handler to the watcher thread; -1 before installation.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// The process whose pipe that is. A child has its parent's handlers from its first instruction on, and both values too.
static OWNER: AtomicI32 = AtomicI32::new(0);
/// Its fork epoch: in another PID namespace a child may have its parent's number.
static EPOCH: AtomicU32 = AtomicU32::new(0);
/// The address of `release`: `at_exit` takes no argument.
static AT_EXIT: AtomicUsize = AtomicUsize::new(0);

/// The handlers were installed by this process. May be called in a signal handler.
fn is_own() -> bool {
    OWNER.load(SeqCst) == fork::pid() && EPOCH.load(SeqCst) == fork::epoch()
}

/// Installs handlers for SIGTERM and SIGINT, once per process (again after a fork). On the
/// first signal `release` runs on a thread of its own, then the process exits with 128 plus
/// the signal's number. `release` also runs at a normal exit.
pub fn install(release: fn()) {
    if is_own() {
        return;
    }
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written to a live array.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        tracing::error!("graceful shutdown not enabled: {}", std::io::Error::last_os_error());
        return;
    }
    // SAFETY: two fresh descriptors that nobody else owns.
    let [read, write] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    if let Err(error) = thread::spawn("mte-exit", move || watch(&read, release), || ()) {
        tracing::error!("graceful shutdown not enabled: {error}");
        return;
    }
    // The pipe first: whoever finds this process as the owner writes into this process's pipe. It stays open.
    PIPE.store(write.into_raw_fd(), SeqCst);
    EPOCH.store(fork::epoch(), SeqCst);
    OWNER.store(fork::pid(), SeqCst);
    AT_EXIT.store(release as usize, SeqCst);
    // SAFETY: `action` is fully initialised; the handler only writes to a pipe.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(libc::SIGTERM, &action, std::ptr::null_mut());
        libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut());
        libc::atexit(at_exit);
    }
}

extern "C" fn at_exit() {
    let release = AT_EXIT.swap(0, SeqCst);
    if release != 0 && is_own() {
        // SAFETY: the value was stored from a `fn()` in `install`.
        let release: fn() = unsafe { std::mem::transmute(release) };
        let _ = std::panic::catch_unwind(release);
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    // A child that inherited the handler has no watcher: it ends at once.
    if !is_own() {
        // SAFETY: _exit is allowed in a signal handler.
        unsafe { libc::_exit(128 + signal) };
    }
    let byte = signal as u8;
    // SAFETY: write is allowed in a signal handler, and one byte of a live variable is read; the
    // interrupted code may be about to look at errno, so it is put back.
    unsafe {
        let errno = *libc::__errno_location();
        libc::write(PIPE.load(SeqCst), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

fn watch(pipe: &OwnedFd, release: fn()) {
    let mut signal = 0u8;
    loop {
        // SAFETY: one byte is written to a live variable.
        let n = unsafe { libc::read(pipe.as_raw_fd(), (&raw mut signal).cast(), 1) };
        if n == 1 {
            break;
        }
    }
    let _ = std::panic::catch_unwind(release);
    // SAFETY: ends the process without running the host's exit handlers, as documented.
    unsafe { libc::_exit(128 + i32::from(signal)) };
}
