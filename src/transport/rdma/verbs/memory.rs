//! Protection domains and memory regions: what a NIC may touch.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_access_flags, ibv_mr, ibv_pd};

use super::context::Context;
use super::library::{last_errno, note_leak, refused};
use crate::error::{Class, Code, Error, Result};
use crate::memory::PeerAccess;

/// A protection domain: its regions and queue pairs work together only.
#[derive(Debug)]
pub struct Pd {
    pub(super) raw: NonNull<ibv_pd>,
    pub(super) context: Arc<Context>,
}

// SAFETY: libibverbs' functions on a domain may be called from any thread, and concurrently.
unsafe impl Send for Pd {}
// SAFETY: as above; the struct is never written to.
unsafe impl Sync for Pd {}

impl Pd {
    /// A new domain of `context`. `ERR_CONTEXT` with errno.
    pub fn alloc(context: &Arc<Context>) -> Result<Arc<Self>> {
        // SAFETY: an open context.
        let raw = NonNull::new(unsafe { (context.library.ibv_alloc_pd)(context.raw.as_ptr()) });
        let raw = raw.ok_or_else(|| context.refused("allocate a protection domain", last_errno()))?;
        Ok(Arc::new(Pd { raw, context: context.clone() }))
    }
}

impl Drop for Pd {
    fn drop(&mut self) {
        // SAFETY: allocated; regions and queue pairs keep it alive, so none is left.
        let returned = unsafe { (self.context.library.ibv_dealloc_pd)(self.raw.as_ptr()) };
        note_leak("a protection domain", self.context.name(), returned);
    }
}

/// Rights to a region. This host may always read and write it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// What peers may do with it.
    pub remote: PeerAccess,
    /// The NIC may reorder its PCI writes, where library and device can.
    pub relaxed_ordering: bool,
}

impl Access {
    fn flags(self) -> c_int {
        let may = |wanted, flag: ibv_access_flags| if self.remote.allows(wanted) { flag.0 } else { 0 };
        let relaxed = ibv_access_flags::IBV_ACCESS_RELAXED_ORDERING.0;
        let flags = ibv_access_flags::IBV_ACCESS_LOCAL_WRITE.0
            | may(PeerAccess::READ, ibv_access_flags::IBV_ACCESS_REMOTE_READ)
            | may(PeerAccess::WRITE, ibv_access_flags::IBV_ACCESS_REMOTE_WRITE)
            | if self.relaxed_ordering { relaxed } else { 0 };
        flags as c_int
    }

    /// The same without what makes some drivers refuse, or `None` if it was without.
    fn strict(self) -> Option<Self> {
        self.relaxed_ordering.then_some(Access { relaxed_ordering: false, ..self })
    }
}

/// A registered memory region; deregistered on drop.
#[derive(Debug)]
pub struct Mr {
    raw: NonNull<ibv_mr>,
    lkey: u32,
    rkey: u32,
    pd: Arc<Pd>,
}

// SAFETY: a region is only looked up by its keys and deregistered once, on any thread.
unsafe impl Send for Mr {}
// SAFETY: as above; the struct is never written to.
unsafe impl Sync for Mr {}

impl Mr {
    /// Registers `len` bytes at `addr`. `ERR_CONTEXT` with errno. Blocks while the pages are pinned.
    ///
    /// # Safety
    /// The range stays mapped until the region is dropped, or the caller takes the consequences: the NIC reads and
    /// writes the pages that were there, whatever they hold by then.
    pub unsafe fn register(pd: &Arc<Pd>, addr: u64, len: u64, access: Access) -> Result<Self> {
        let library = pd.context.library;
        let what = || format!("register {len} bytes at {addr:#x} with RDMA device {}", pd.context.name());
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(
            usize::try_from(addr).map_err(|_| Error::invalid(format!("cannot {}", what())))?,
        );
        let bytes = usize::try_from(len).map_err(|_| Error::invalid(format!("cannot {}", what())))?;
        let relaxed = library.ibv_reg_mr_iova2.filter(|_| access.relaxed_ordering);
        Self::attempt(pd, Access { relaxed_ordering: relaxed.is_some(), ..access }, |access| match relaxed {
            Some(register) => {
                // SAFETY: a live domain; the caller vouches for the range.
                unsafe { register(pd.raw.as_ptr(), start, bytes, addr, access.flags() as u32) }
            }
            // SAFETY: a live domain; the caller vouches for the range.
            None => unsafe { (library.ibv_reg_mr)(pd.raw.as_ptr(), start, bytes, access.flags()) },
        })
        .map_err(|errno| {
            let error = refused(Code::Context, format!("cannot {} ({})", what(), advice(errno)), errno);
            if errno == libc::ENOMEM {
                error.transient(Class::Resource)
            } else {
                error
            }
        })
    }

    /// Registers `len` bytes at `offset` of a dma-buf, which peers name by `iova`. The descriptor may be closed
    /// afterwards. `ERR_NOT_IMPLEMENTED` if library or driver cannot, else `ERR_CONTEXT` with errno.
    ///
    /// # Safety
    /// As for [`Mr::register`], for the memory behind the descriptor.
    pub unsafe fn register_dmabuf(
        pd: &Arc<Pd>,
        fd: i32,
        offset: u64,
        len: u64,
        iova: u64,
        access: Access,
    ) -> Result<Self> {
        let name = pd.context.name();
        let unsupported = |why: &str| {
            let advice =
                "set WITH_NVIDIA_PEERMEM=true and load nvidia-peermem to register GPU memory by address";
            Error::new(Code::NotImplemented, format!("{why} cannot register a dma-buf; {advice}"))
        };
        let Some(register) = pd.context.library.ibv_reg_dmabuf_mr else {
            return Err(unsupported("libibverbs (older than rdma-core 34)"));
        };
        let what =
            || format!("register {len} bytes at offset {offset} of dma-buf {fd} with RDMA device {name}");
        let bytes = usize::try_from(len).map_err(|_| Error::invalid(format!("cannot {}", what())))?;
        Self::attempt(pd, access, |access| {
            // SAFETY: a live domain; the caller vouches for the memory.
            unsafe { register(pd.raw.as_ptr(), offset, bytes, iova, fd, access.flags()) }
        })
        .map_err(|errno| match errno {
            libc::EOPNOTSUPP => unsupported(&format!("RDMA device {name} or its driver")),
            _ => refused(Code::Context, format!("cannot {} ({})", what(), advice(errno)), errno),
        })
    }

    /// Registers by `call`, again with strict ordering if relaxed ordering may be what is refused; else errno.
    fn attempt(
        pd: &Arc<Pd>,
        access: Access,
        call: impl Fn(Access) -> *mut ibv_mr,
    ) -> std::result::Result<Self, i32> {
        let Some(raw) = NonNull::new(call(access)) else {
            let errno = last_errno();
            return match access.strict() {
                Some(strict) if matches!(errno, libc::EINVAL | libc::EOPNOTSUPP) => {
                    Self::attempt(pd, strict, call)
                }
                _ => Err(errno),
            };
        };
        // SAFETY: a region just made.
        let (lkey, rkey) = unsafe { ((*raw.as_ptr()).lkey, (*raw.as_ptr()).rkey) };
        Ok(Mr { raw, lkey, rkey, pd: pd.clone() })
    }

    /// Key for our own work requests.
    pub fn lkey(&self) -> u32 {
        self.lkey
    }

    /// Key for peers.
    pub fn rkey(&self) -> u32 {
        self.rkey
    }
}

impl Drop for Mr {
    fn drop(&mut self) {
        // SAFETY: registered, and deregistered once.
        let returned = unsafe { (self.pd.context.library.ibv_dereg_mr)(self.raw.as_ptr()) };
        note_leak("a memory region", self.pd.context.name(), returned);
    }
}

/// What to do about a refused registration.
fn advice(errno: i32) -> String {
    match errno {
        libc::ENOMEM => format!(
            "pinning is limited by RLIMIT_MEMLOCK, {}: raise it with ulimit -l or LimitMEMLOCK; without a limit, \
             memory or the device's regions are used up",
            memlock()
        ),
        libc::EFAULT => "not all of it is mapped and writable, or it is GPU memory and nvidia-peermem is not loaded".into(),
        libc::EINVAL => {
            "the length is 0, the range wraps around, or it is memory that cannot be pinned, such as a device's".into()
        }
        libc::EOPNOTSUPP => {
            "a kind of memory that device or driver cannot register, such as a file mapped from some file systems".into()
        }
        libc::EPERM | libc::EACCES => "not permitted; check CAP_IPC_LOCK and ulimit -l".into(),
        _ => "the driver's reason follows".into(),
    }
}

/// The limit for pinned memory, as text.
fn memlock() -> String {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: written to a live struct.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return "unknown".into();
    }
    match limit.rlim_cur {
        libc::RLIM_INFINITY => "now unlimited".into(),
        bytes => format!("now {} KiB", bytes / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_registration_says_what_to_do() {
        for (errno, word) in [
            (libc::ENOMEM, "ulimit -l"),
            (libc::EFAULT, "nvidia-peermem"),
            (libc::EINVAL, "wraps around"),
            (libc::EOPNOTSUPP, "file systems"),
            (libc::EPERM, "CAP_IPC_LOCK"),
            (libc::EACCES, "CAP_IPC_LOCK"),
            (libc::EIO, "the driver's reason"),
        ] {
            assert!(advice(errno).contains(word), "{errno}: {}", advice(errno));
        }
        assert!(memlock().starts_with("now "), "{}", memlock());
    }
}
