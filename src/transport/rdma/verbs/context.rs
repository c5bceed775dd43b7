//! An opened device.

#![allow(unsafe_code)]

use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_sys::{ibv_context, ibv_device_attr, ibv_gid, ibv_port_attr};

use super::devices::DeviceList;
use super::event::{AsyncEvent, RawEvent};
use super::library::{last_errno, library, note_leak, refused, returned_errno, Library};
use super::port::{GidEntry, Port, PortFolder, RawGidEntry};
use crate::error::{Code, Error, Result};

/// An opened device; closed when it and all that was made from it are dropped.
pub struct Context {
    pub(super) raw: NonNull<ibv_context>,
    pub(super) library: &'static Library,
    name: String,
}

// SAFETY: libibverbs' functions on a context may be called from any thread, and concurrently.
unsafe impl Send for Context {}
// SAFETY: as above; we never write to the context itself.
unsafe impl Sync for Context {}

/// Limits of a device.
#[derive(Clone, Debug)]
pub struct Attributes {
    /// Queue pairs.
    pub max_qp: u32,
    /// Work requests of one queue.
    pub max_qp_wr: u32,
    /// Scatter-gather entries of a work request.
    pub max_sge: u32,
    /// Completion queues.
    pub max_cq: u32,
    /// Entries of a completion queue.
    pub max_cqe: u32,
    /// Memory regions.
    pub max_mr: u32,
    /// Bytes of a memory region.
    pub max_mr_size: u64,
    /// Reads in flight that a queue pair answers.
    pub max_qp_rd_atom: u8,
    /// Reads in flight that a queue pair starts.
    pub max_qp_init_rd_atom: u8,
    /// Ports.
    pub ports: u8,
}

impl Context {
    /// Opens the device called `name`. `ERR_DEVICE_NOT_FOUND` if there is none, `ERR_CONTEXT` with errno if it cannot
    /// be opened. May block.
    pub fn open(name: &str) -> Result<Arc<Self>> {
        let library = library()?;
        let list = DeviceList::read(library)?;
        let Some((_, device)) = list.iter().find(|(device, _)| device == name) else {
            let found: Vec<String> = list.iter().map(|(name, _)| name).collect();
            let found = if found.is_empty() { "no RDMA device".into() } else { found.join(", ") };
            let text = format!("there is no RDMA device '{name}'; this host has {found}");
            return Err(Error::new(Code::DeviceNotFound, text));
        };
        // SAFETY: a device of a live list.
        let raw = NonNull::new(unsafe { (library.ibv_open_device)(device.as_ptr()) });
        let raw = raw.ok_or_else(|| {
            let errno = last_errno();
            let advice = match errno {
                libc::EACCES | libc::EPERM => {
                    " (needs read and write permission for /dev/infiniband/uverbs*)"
                }
                libc::ENOENT | libc::ENODEV | libc::ENXIO => {
                    " (is /dev/infiniband there? a container must be given it)"
                }
                libc::ENOMEM => " (check ulimit -l)",
                libc::EMFILE => " (check ulimit -n)",
                _ => "",
            };
            refused(Code::Context, format!("cannot open RDMA device {name}{advice}"), errno)
        })?;
        let context = Arc::new(Context { raw, library, name: name.to_owned() });
        set_nonblocking(context.async_fd())
            .map_err(|errno| refused(Code::Context, format!("cannot prepare events of {name}"), errno))?;
        Ok(context)
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device's limits.
    pub fn attributes(&self) -> Result<Attributes> {
        // SAFETY: plain numbers, for which zeroes are valid.
        let mut raw: ibv_device_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context and a live struct of the library's type.
        let returned = unsafe { (self.library.ibv_query_device)(self.raw.as_ptr(), &mut raw) };
        self.check(returned, "query the limits")?;
        let number = |value: i32| u32::try_from(value).unwrap_or(0);
        let small = |value: i32| value.clamp(0, 255) as u8;
        Ok(Attributes {
            max_qp: number(raw.max_qp),
            max_qp_wr: number(raw.max_qp_wr),
            max_sge: number(raw.max_sge),
            max_cq: number(raw.max_cq),
            max_cqe: number(raw.max_cqe),
            max_mr: number(raw.max_mr),
            max_mr_size: raw.max_mr_size,
            max_qp_rd_atom: small(raw.max_qp_rd_atom),
            max_qp_init_rd_atom: small(raw.max_qp_init_rd_atom),
            ports: raw.phys_port_cnt,
        })
    }

    /// State and rate of port `port`, which counts from 1.
    pub fn port(&self, port: u8) -> Result<Port> {
        // SAFETY: plain numbers, for which zeroes are valid. The exported function fills an older, shorter form.
        let mut raw: ibv_port_attr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context and a live struct, not shorter than what is written.
        let returned = unsafe { (self.library.ibv_query_port)(self.raw.as_ptr(), port, &mut raw) };
        self.check(returned, format_args!("query port {port}"))?;
        Ok(Port::from_raw(&raw, &PortFolder::new(&self.name, port)))
    }

    /// Entry `index` of the GID table of `port`; `None` if it is empty or the table ends before it.
    pub fn gid(&self, port: u8, index: u32) -> Result<Option<GidEntry>> {
        let what = format_args!("query GID {index} of port {port}");
        let Some(query) = self.library._ibv_query_gid_ex else {
            return self.gid_by_sysfs(port, index);
        };
        let mut entry = RawGidEntry::default();
        let size = size_of::<RawGidEntry>();
        // SAFETY: an open context and a live struct of the given size.
        let returned = unsafe { query(self.raw.as_ptr(), port.into(), index, &mut entry, 0, size) };
        match returned {
            0 => Ok(entry.into_entry()),
            _ => match returned_errno(returned) {
                libc::ENODATA => Ok(None),
                // What the kernel says to an index behind the table, but not only to that.
                libc::EINVAL if index >= self.port(port)?.gid_table_len => Ok(None),
                errno => Err(self.refused(what, errno)),
            },
        }
    }

    fn gid_by_sysfs(&self, port: u8, index: u32) -> Result<Option<GidEntry>> {
        let of_port = self.port(port)?;
        let Some(number) = i32::try_from(index).ok().filter(|_| index < of_port.gid_table_len) else {
            return Ok(None);
        };
        let mut gid = ibv_gid { raw: [0; 16] };
        // SAFETY: an open context and a live union of the library's type.
        let returned = unsafe { (self.library.ibv_query_gid)(self.raw.as_ptr(), port, number, &mut gid) };
        self.check(returned, format_args!("query GID {index} of port {port}"))?;
        // SAFETY: sixteen bytes, initialised above; every pattern is valid.
        let gid = unsafe { gid.raw };
        Ok(PortFolder::new(&self.name, port).gid_entry(gid, index, of_port.is_infiniband))
    }

    /// Readable when there is an event; non-blocking. Valid as long as the context.
    pub fn async_fd(&self) -> RawFd {
        // SAFETY: an open context.
        unsafe { (*self.raw.as_ptr()).async_fd }
    }

    /// The next event, if there is one. It is acknowledged: destroying what it is about does not wait for the caller.
    pub fn next_event(&self) -> Result<Option<AsyncEvent>> {
        let mut raw = RawEvent::empty();
        loop {
            // SAFETY: an open context and a live struct of the library's type.
            if unsafe { (self.library.ibv_get_async_event)(self.raw.as_ptr(), &mut raw) } == 0 {
                break;
            }
            match last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => return Ok(None),
                errno => return Err(self.refused("read events", errno)),
            }
        }
        // SAFETY: just got, not acknowledged.
        let event = unsafe { raw.read() };
        // SAFETY: just got, acknowledged once.
        unsafe { (self.library.ibv_ack_async_event)(&mut raw) };
        Ok(Some(event))
    }

    fn check(&self, returned: i32, what: impl fmt::Display) -> Result<()> {
        match returned {
            0 => Ok(()),
            _ => Err(self.refused(what, returned_errno(returned))),
        }
    }

    /// `ERR_CONTEXT`: cannot `what` on this device.
    pub(super) fn refused(&self, what: impl fmt::Display, errno: i32) -> Error {
        refused(Code::Context, format!("cannot {what} of RDMA device {}", self.name), errno)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.name)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: open; whatever was made from it kept it alive, so nothing is left.
        let returned = unsafe { (self.library.ibv_close_device)(self.raw.as_ptr()) };
        note_leak("the open device", &self.name, returned);
    }
}

/// Makes reads of `fd` return instead of wait; fails with errno.
pub(super) fn set_nonblocking(fd: RawFd) -> std::result::Result<(), i32> {
    // SAFETY: no memory arguments.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: no memory arguments.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(last_errno());
    }
    Ok(())
}
