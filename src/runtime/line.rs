//! Writing to standard error without the standard library's lock, which a fork may leave held in the child.

#![allow(unsafe_code)]

use std::io;

/// Standard error. Each write is one `write(2)`, so lines of several threads and processes do not mix.
pub struct Stderr;

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: reads a live slice.
        let written = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(written) => Ok(written),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
