//! The RDMA devices of this host, by name.

#![allow(unsafe_code)]

use std::ffi::{c_int, CStr};
use std::ptr::NonNull;

use rdma_sys::ibv_device;

use super::library::{last_errno, library, refused, Library};
use crate::error::{Code, Result};

/// Names of the RDMA devices of this host, in the driver's order; empty if there are none.
pub fn device_names() -> Result<Vec<String>> {
    let list = DeviceList::read(library()?)?;
    Ok(list.iter().map(|(name, _)| name).collect())
}

/// The devices as of one moment; freed on drop. An opened device outlives the list.
pub(super) struct DeviceList {
    library: &'static Library,
    /// `None`: the kernel knows no RDMA.
    first: Option<NonNull<*mut ibv_device>>,
    count: usize,
}

impl DeviceList {
    pub(super) fn read(library: &'static Library) -> Result<Self> {
        let mut count: c_int = 0;
        // SAFETY: the count is written to a live variable.
        let first = NonNull::new(unsafe { (library.ibv_get_device_list)(&mut count) });
        let errno = last_errno();
        if first.is_none() && errno != libc::ENOSYS {
            return Err(refused(Code::DeviceNotFound, "cannot list the RDMA devices", errno));
        }
        Ok(DeviceList { library, first, count: usize::try_from(count).unwrap_or(0) })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (String, NonNull<ibv_device>)> + '_ {
        let devices = self.first.map_or(&[][..], |first| {
            // SAFETY: an array of `count` pointers that lives as long as this list.
            unsafe { std::slice::from_raw_parts(first.as_ptr(), self.count) }
        });
        devices.iter().filter_map(|device| {
            let device = NonNull::new(*device)?;
            // SAFETY: a device of a live list.
            let name = unsafe { (self.library.ibv_get_device_name)(device.as_ptr()) };
            if name.is_null() {
                return None;
            }
            // SAFETY: not null, so a terminated string inside the device.
            Some((unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(), device))
        })
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        if let Some(first) = self.first {
            // SAFETY: came from ibv_get_device_list and is freed once.
            unsafe { (self.library.ibv_free_device_list)(first.as_ptr()) };
        }
    }
}
