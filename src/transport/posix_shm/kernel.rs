//! System calls of the transport. Memory of ours is described by address and length, and only the kernel touches it, so memory
//! that is not mapped is an error and not a fault.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Why bytes could not be copied.
#[derive(Debug)]
pub(super) enum Fault {
    /// Memory of ours at this address is not mapped.
    Local(u64),
    /// The object ends before the range does.
    Short,
    /// The files of this process may not become so long (`ulimit -f`).
    Limited,
    /// Anything else, as the kernel says it.
    Other(io::Error),
}

/// Reads `len` bytes from `offset` of the object to memory at `to`, which the caller registered to be written.
pub(super) fn read(file: &File, offset: u64, to: u64, len: u64) -> Result<(), Fault> {
    each(to, offset, len, |addr, at, left| {
        // SAFETY: the kernel checks the address, which the caller registered to be written.
        unsafe { libc::pread(file.as_raw_fd(), addr as *mut libc::c_void, left, at) }
    })
}

/// Writes `len` bytes of memory at `from` to `offset` of the object, which is long enough.
pub(super) fn write(file: &File, offset: u64, from: u64, len: u64) -> Result<(), Fault> {
    // Beyond the limit the kernel would send a signal that ends the process.
    if offset.checked_add(len).is_none_or(|end| end > longest_file()) {
        return Err(Fault::Limited);
    }
    each(from, offset, len, |addr, at, left| {
        // SAFETY: the kernel checks the address, and only reads there.
        unsafe { libc::pwrite(file.as_raw_fd(), addr as *const libc::c_void, left, at) }
    })
}

/// Calls until all bytes are moved: with the address, the offset in the file, and how many are left.
fn each(
    addr: u64,
    offset: u64,
    len: u64,
    call: impl Fn(u64, libc::off_t, usize) -> isize,
) -> Result<(), Fault> {
    let mut done = 0;
    while done < len {
        let at = libc::off_t::try_from(offset + done).map_err(|_| Fault::Short)?;
        match call(addr + done, at, (len - done) as usize) {
            0 => return Err(Fault::Short),
            moved @ 1.. => done += moved as u64,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error if error.raw_os_error() == Some(libc::EFAULT) => return Err(Fault::Local(addr + done)),
                error => return Err(Fault::Other(error)),
            },
        }
    }
    Ok(())
}

/// How long the files may be that this process writes.
fn longest_file() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to the live structure only.
    match unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } {
        0 => limit.rlim_cur,
        _ => u64::MAX,
    }
}

/// Whether the file lies in memory (tmpfs).
pub(super) fn is_in_memory(file: &File) -> io::Result<bool> {
    // SAFETY: plain numbers, for which zeros are valid.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: writes to the live structure only.
    match unsafe { libc::fstatfs(file.as_raw_fd(), &mut found) } {
        0 => Ok(found.f_type == libc::TMPFS_MAGIC),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The user that this process acts for.
pub(super) fn own_user() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mapped_and_what_is_not_there_are_told_apart() {
        let path = std::env::temp_dir().join(format!("mte-posix-shm-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut bytes = [7u8; 64];
        let here = bytes.as_mut_ptr() as u64;
        write(&file, 100, here, 64).unwrap();
        bytes.fill(0);
        read(&file, 100, here, 64).unwrap();
        assert_eq!(bytes, [7; 64]);
        assert!(matches!(write(&file, 0, 1, 64), Err(Fault::Local(1))));
        assert!(matches!(read(&file, 100, 1, 64), Err(Fault::Local(1))));
        assert!(matches!(read(&file, 101, here, 64), Err(Fault::Short)));
        assert!(matches!(read(&file, u64::MAX - 64, here, 64), Err(Fault::Short)));
        assert!(matches!(write(&file, u64::MAX, here, 64), Err(Fault::Limited)));
    }

    #[test]
    fn a_call_that_moves_a_part_is_followed_by_one_for_the_rest() {
        let calls = std::cell::RefCell::new(Vec::new());
        let outcome = each(1000, 50, 25, |addr, at, left| {
            calls.borrow_mut().push((addr, at, left));
            left.min(10) as isize
        });
        outcome.unwrap();
        assert_eq!(calls.into_inner(), [(1000, 50, 25), (1010, 60, 15), (1020, 70, 5)]);
        let file = File::open("/dev/zero").unwrap();
        let outcome = each(1, 0, 25, |addr, _, left| match addr {
            1 => 10,
            // SAFETY: the kernel checks the address, where nothing is mapped.
            _ => unsafe { libc::pread(file.as_raw_fd(), addr as *mut libc::c_void, left, 0) },
        });
        assert!(matches!(outcome, Err(Fault::Local(11))));
    }
}
