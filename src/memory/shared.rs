//! Memory that other processes of this host can map: anonymous files (memfd_create(2)) that cannot shrink, so whoever maps one is
//! safe from faults, and that nobody else can write. The allocations of a process are in one table, because memory is registered by its address.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::runtime::per_process::PerProcess;
use crate::runtime::tracked::Tracked;

/// What an allocation is rounded up to where huge pages are asked for: the usual size of one on x86-64 and aarch64.
const HUGE: u64 = 2 << 20;
const SMALL: u64 = 4096;

/// What an allocation is called in `/proc/PID/maps`.
const NAME: &CStr = c"mte-shared";

/// Nobody maps or writes the file to change it from now on; mappings that are there stay as they are. From fcntl(2), Linux 5.1.
pub const F_SEAL_FUTURE_WRITE: i32 = 0x10;

/// Allocations by their first byte.
static TABLE: PerProcess<Mutex<BTreeMap<u64, Arc<SharedMemory>>>> = PerProcess::new(Mutex::default);

/// One allocation, mapped until the last that holds it lets it go. A region in it holds it, so a registered one stays mapped.
pub struct SharedMemory {
    /// Differs between all allocations of the process; not 0.
    pub id: u64,
    /// First byte.
    pub addr: u64,
    /// Bytes, in whole pages.
    pub len: u64,
    /// `None` once nobody else gets it.
    fd: Option<Tracked<OwnedFd>>,
    /// Its pages are from the system's pool of huge ones.
    is_pooled: bool,
    /// Whoever has the descriptor can only read.
    is_sealed: bool,
}

impl SharedMemory {
    /// The descriptor that others map; sealed. -1 after [`SharedMemory::close`].
    pub fn fd(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, |fd| fd.as_raw_fd())
    }

    /// Gives the descriptor up; the memory stays.
    pub fn close(&mut self) {
        self.fd = None;
    }

    /// The 64-bit number with this index; `None` beyond the end. Whoever maps the memory may read it meanwhile.
    pub fn number(&self, index: usize) -> Option<&AtomicU64> {
        let is_inside = index < (self.len / 8) as usize;
        // SAFETY: inside of the mapping, which lives as long as the borrowed value and begins at a page. Nobody but this process
        // can write it, and whoever does so here uses atomics too: it is in no table that leads others to it.
        is_inside.then(|| unsafe { &*(self.addr as *const AtomicU64).add(index) })
    }

    /// Others may have the descriptor. `false` where the kernel cannot keep them from writing (before 5.1).
    pub fn can_be_shared(&self) -> bool {
        self.is_sealed
    }
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {:#x}", self.len, self.addr)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // The pages go with the last mapping: peers are told, and a forked child keeps its own.
        // SAFETY: the mapping made by `allocate`, which nobody uses any more: whoever uses it holds this value.
        unsafe { libc::munmap(self.addr as *mut libc::c_void, self.len as usize) };
    }
}

/// Allocates memory of at least `len` zeros, with huge pages if `huge` and the system has some, on the NUMA node `node` if it
/// is given. -1 for 0 bytes, -300 for a node that does not exist, -202 if there is no room.
pub fn allocate(len: u64, huge: bool, node: Option<u32>) -> Result<Arc<SharedMemory>> {
    let page = if huge { HUGE } else { SMALL };
    let rounded =
        len.checked_next_multiple_of(page).filter(|rounded| (1..=i64::MAX as u64).contains(rounded));
    let Some(rounded) = rounded else { return Err(Error::invalid(format!("cannot allocate {len} bytes"))) };
    let pooled = huge.then(|| make(NAME, rounded, true, node)).and_then(Result::ok);
    let memory = Arc::new(pooled.map_or_else(|| make(NAME, rounded, false, node), Ok)?);
    if huge && !memory.is_pooled {
        // SAFETY: the mapping that was just made; the advice changes no contents.
        unsafe { libc::madvise(memory.addr as *mut libc::c_void, rounded as usize, libc::MADV_HUGEPAGE) };
    }
    TABLE.get().lock().insert(memory.addr, memory.clone());
    Ok(memory)
}

/// Memory of the library's own: nobody finds it by its address, and it ends with the value.
pub fn unlisted(len: u64) -> Result<SharedMemory> {
    make(c"mte-own", len.next_multiple_of(SMALL), false, None)
}

/// Gives up the allocation that starts at `addr`. `false`: there is none.
pub fn free(addr: u64) -> bool {
    // Dropped without the lock.
    let freed = TABLE.get().lock().remove(&addr);
    freed.is_some()
}

/// The allocation that starts at `addr`.
pub fn starting_at(addr: u64) -> Option<Arc<SharedMemory>> {
    TABLE.get().lock().get(&addr).cloned()
}

/// The allocation that holds all of a range.
pub fn holding(addr: u64, len: u64) -> Option<Arc<SharedMemory>> {
    let table = TABLE.get().lock();
    let (_, memory) = table.range(..=addr).next_back()?;
    let offset = addr - memory.addr;
    (offset < memory.len && len <= memory.len - offset).then(|| memory.clone())
}

fn make(name: &CStr, len: u64, pooled: bool, node: Option<u32>) -> Result<SharedMemory> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let failed = |what: &str, error: &io::Error| {
        Error::io(
            Code::Memory,
            format!("{what} {len} bytes of shared memory (check the limit of the container, and huge pages)"),
            error,
        )
    };
    let kind = if pooled { libc::MFD_HUGETLB } else { 0 };
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | kind;
    let fd = Tracked::open(|| {
        // SAFETY: a name with its NUL.
        let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
        match fd {
            // SAFETY: a fresh descriptor that nobody else owns.
            0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ => Err(io::Error::last_os_error()),
        }
    });
    let fd = fd.map_err(|e| failed("cannot make", &e))?;
    let number = fd.as_raw_fd();
    // SAFETY: no memory arguments.
    if unsafe { libc::ftruncate(number, len as i64) } != 0 {
        return Err(failed("cannot size", &io::Error::last_os_error()));
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let addr =
        unsafe { libc::mmap(std::ptr::null_mut(), len as usize, protection, libc::MAP_SHARED, number, 0) };
    if addr == libc::MAP_FAILED {
        return Err(failed("cannot map", &io::Error::last_os_error()));
    }
    let id = NEXT.fetch_add(1, Relaxed);
    // From here on it is unmapped if something fails.
    let mut memory =
        SharedMemory { id, addr: addr as u64, len, fd: Some(fd), is_pooled: pooled, is_sealed: true };
    if let Some(node) = node {
        bind(&memory, node)?;
    }
    // All pages are there from now on, so nobody is told later that there are none.
    // SAFETY: no memory arguments.
    if unsafe { libc::fallocate(number, 0, 0, len as i64) } != 0 {
        return Err(failed("there are no", &io::Error::last_os_error()));
    }
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no memory arguments.
    let seal = |seals: i32| match unsafe { libc::fcntl(number, libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    let sealed = match seal(seals | F_SEAL_FUTURE_WRITE) {
        // The kernel does not know the seal, and has set none.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            memory.is_sealed = false;
            seal(seals)
        }
        outcome => outcome,
    };
    sealed.map_err(|error| failed("cannot seal", &error))?;
    Ok(memory)
}

/// Has the pages made on `node`.
fn bind(memory: &SharedMemory, node: u32) -> Result<()> {
    const MPOL_BIND: libc::c_int = 2;
    const NODES: u32 = 1024;
    let no_node = |error: &io::Error| Error::io(Code::Numa, format!("memory on NUMA node {node}"), error);
    if node >= NODES {
        return Err(no_node(&io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let mut mask = [0u64; NODES as usize / 64];
    mask[node as usize / 64] = 1 << (node % 64);
    // SAFETY: the mask has so many bits; the range is the mapping's. The policy is that of the file, since it is shared.
    let result = unsafe {
        let (addr, len) = (memory.addr as *mut libc::c_void, memory.len as usize);
        libc::syscall(libc::SYS_mbind, addr, len, MPOL_BIND, mask.as_ptr(), libc::c_ulong::from(NODES), 0)
    };
    match result {
        0 => Ok(()),
        _ => Err(no_node(&io::Error::last_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_found_by_what_lies_in_it() {
        let memory = allocate(10_000, false, None).unwrap();
        assert_eq!(memory.len, 12_288);
        let found = |addr, len| holding(addr, len).is_some_and(|found| Arc::ptr_eq(&found, &memory));
        assert!(found(memory.addr, memory.len) && found(memory.addr + 1, 10));
        assert!(
            !found(memory.addr + 1, memory.len)
                && !found(memory.addr - 1, 2)
                && !found(memory.addr, u64::MAX)
        );
        assert!(free(memory.addr) && !free(memory.addr) && holding(memory.addr, 1).is_none());
    }

    #[test]
    fn whoever_has_the_descriptor_can_only_read() {
        let memory = allocate(4096, false, None).unwrap();
        let mapped = |protection| {
            let nowhere = std::ptr::null_mut();
            // SAFETY: a new mapping at an address of the kernel's choice.
            let addr = unsafe { libc::mmap(nowhere, 4096, protection, libc::MAP_SHARED, memory.fd(), 0) };
            // SAFETY: the mapping that was just made, if it was; nobody uses it.
            addr != libc::MAP_FAILED && unsafe { libc::munmap(addr, 4096) } == 0
        };
        let is_writable = mapped(libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: one byte of a live array.
        let written = unsafe { libc::pwrite(memory.fd(), [1u8].as_ptr().cast(), 1, 0) };
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no memory arguments.
        let punched = unsafe { libc::fallocate(memory.fd(), mode, 0, 4096) };
        assert!(mapped(libc::PROT_READ));
        assert_eq!(
            (is_writable, written, punched),
            match memory.can_be_shared() {
                true => (false, -1, -1),
                false => (true, 1, 0),
            }
        );
        assert!(free(memory.addr));
    }

    #[test]
    fn what_cannot_be_allocated_is_an_error() {
        for (len, huge, node, code) in [
            (0, false, None, Code::InvalidArgument),
            (u64::MAX, true, None, Code::InvalidArgument),
            (1 << 62, false, None, Code::Memory),
            (1 << 62, true, None, Code::Memory),
            (4096, false, Some(1_000_000), Code::Numa),
            (4096, true, Some(1_000_000), Code::Numa),
        ] {
            assert_eq!(allocate(len, huge, node).unwrap_err().code(), code, "{len} bytes");
        }
        let huge = allocate(1, true, None).unwrap();
        assert_eq!(huge.len, HUGE);
        assert!(free(huge.addr));
    }
}
