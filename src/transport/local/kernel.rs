//! Copies inside this process that the kernel makes: memory that is not mapped is an error of the copy and not a fault
//! of the process. Holds nothing between two calls, so a fork in between is harmless.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::{Code, Error, Result};

/// Most bytes put into the pipe at once. From pipe(7): a pipe holds as much, unless its user has too many pipes.
const PIPE_BYTES: u64 = 64 << 10;

/// Copies `len` bytes, which must not overlap: `process_vm_writev` on ourselves, and a pipe for what that refuses. The
/// pipe says which side is at fault; it also works where the call is forbidden (seccomp), and for memory of drivers,
/// whose pages cannot be pinned. Fails with `ERR_INVALID_ARGUMENT` and EFAULT when an address is bad; what lies before
/// it may have been copied then.
pub(super) fn copy(from: u64, to: u64, len: u64) -> Result<()> {
    let mut done = 0;
    while done < len {
        match write_own(from + done, to + done, len - done) {
            Ok(copied) => done += copied,
            Err(refusal) => return through_pipe(from + done, to + done, len - done, &refusal),
        }
    }
    Ok(())
}

/// Makes one call and returns how many bytes it copied, at least 1.
fn write_own(from: u64, to: u64, len: u64) -> io::Result<u64> {
    let local = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: len as usize };
    let remote = libc::iovec { iov_base: to as *mut libc::c_void, iov_len: len as usize };
    let pid = std::process::id() as libc::pid_t;
    // SAFETY: both vectors live through the call; the kernel checks the addresses in them. The destination is memory
    // that the caller registered to be written, or a buffer that the calling function holds exclusively.
    moved(unsafe { libc::process_vm_writev(pid, &local, 1, &remote, 1, 0) })
}

/// As [`copy`], when `process_vm_writev` gave `refusal`.
fn through_pipe(from: u64, to: u64, len: u64, refusal: &io::Error) -> Result<()> {
    let (reader, writer) = pipe().map_err(|e| {
        let what = format!(
            "copying {len} bytes from {from:#x} to {to:#x}: process_vm_writev: {refusal}; and no pipe can be made to copy \
             through (raise RLIMIT_NOFILE)"
        );
        Error::io(Code::Memory, what, &e)
    })?;
    let mut done = 0;
    while done < len {
        let source = from + done;
        let held = put(&writer, source, PIPE_BYTES.min(len - done)).map_err(|e| bad_source(source, &e))?;
        let end = done + held;
        while done < end {
            let destination = to + done;
            done += take(&reader, destination, end - done).map_err(|e| bad_destination(destination, &e))?;
        }
    }
    Ok(())
}

/// The two ends of a new pipe: reading, writing. Neither blocks.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: two descriptors are written to a live array of two.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fresh descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Puts bytes at `from` into an empty pipe; returns how many went in, at least 1.
fn put(writer: &OwnedFd, from: u64, len: u64) -> io::Result<u64> {
    // SAFETY: the kernel checks the address.
    moved(unsafe { libc::write(writer.as_raw_fd(), from as *const libc::c_void, len as usize) })
}

/// Takes bytes from a pipe that is not empty; returns how many came, at least 1.
fn take(reader: &OwnedFd, to: u64, len: u64) -> io::Result<u64> {
    // SAFETY: the kernel checks the address, which the caller registered to be written, or which lies in a buffer that
    // the calling function holds exclusively.
    moved(unsafe { libc::read(reader.as_raw_fd(), to as *mut libc::c_void, len as usize) })
}

/// The result of a call that moves bytes: how many it moved, at least 1, or errno.
fn moved(bytes: isize) -> io::Result<u64> {
    match bytes {
        1.. => Ok(bytes as u64),
        0 => Err(io::ErrorKind::WriteZero.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn bad_source(addr: u64, error: &io::Error) -> Error {
    let what = format!("the source address {addr:#x} is registered but cannot be read");
    bad(what, "it is not mapped any more; unregister memory before it is unmapped or freed", error)
}

fn bad_destination(addr: u64, error: &io::Error) -> Error {
    let what = format!("the destination address {addr:#x} is registered but cannot be written");
    let fault =
        "it is not mapped any more, or read-only; unregister memory before it is unmapped or freed, and map \
                 destinations with PROT_WRITE";
    bad(what, fault, error)
}

/// Only EFAULT speaks of the memory; anything else is the kernel's refusal to copy.
fn bad(what: String, fault: &str, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::EFAULT) => Error::io(Code::InvalidArgument, format!("{what}, {fault}"), error),
        _ => Error::io(Code::InvalidArgument, what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipe_moves_what_the_kernels_copy_refuses() {
        let refusal = io::Error::from_raw_os_error(libc::EPERM);
        for len in [1usize, 4095, 65_536, 65_537, 300_001] {
            let source: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let mut sink = vec![0u8; len + 1];
            through_pipe(source.as_ptr() as u64, sink.as_mut_ptr() as u64, len as u64, &refusal).unwrap();
            assert!(sink[..len] == source[..] && sink[len] == 0, "{len} bytes");
        }
    }

    #[test]
    fn the_error_names_the_side_that_is_not_mapped() {
        let mut mapped = [7u8; 8];
        let mapped = mapped.as_mut_ptr() as u64;
        for (from, to, side) in
            [(0, mapped, "the source address 0x0 "), (mapped, 0, "the destination address 0x0 ")]
        {
            let error = copy(from, to, 8).unwrap_err();
            assert!(error.text().starts_with(side), "{error}");
            assert_eq!((error.code(), error.errno()), (Code::InvalidArgument, libc::EFAULT));
        }
    }
}
