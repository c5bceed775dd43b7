//! The table of libibverbs' functions, resolved once with dlopen and dlsym. rdma-sys gives the types only: one direct
//! call of an extern function of it would make our library need libibverbs to be loaded at all.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::io;
use std::ptr::NonNull;

use once_cell::sync::OnceCell;
use rdma_sys::{
    ibv_comp_channel, ibv_context, ibv_cq, ibv_device, ibv_device_attr, ibv_gid, ibv_mr, ibv_pd,
    ibv_port_attr, ibv_qp, ibv_qp_attr, ibv_qp_init_attr, ibv_recv_wr, ibv_send_wr, ibv_wc,
};

use super::event::RawEvent;
use super::port::RawGidEntry;
use crate::error::{Code, Error, Result};
use crate::runtime::per_process::PerProcess;

/// The library's file; its major version is the ABI that the types of rdma-sys describe.
const FILE: &CStr = c"libibverbs.so.1";

/// Declares the table. `needed` must be exported; of `optional` ones, versions of rdma-core before 1.11 (v32) lack
/// some.
macro_rules! functions {
    (
        needed { $($need:ident($($need_arg:ty),*) $(-> $need_ret:ty)?;)* }
        optional { $($may:ident($($may_arg:ty),*) -> $may_ret:ty;)* }
    ) => {
        /// The functions that we use, with the names and types of `<infiniband/verbs.h>`.
        pub(super) struct Library {
            $(
                /// # Safety
                /// As its man page says.
                pub $need: unsafe extern "C" fn($($need_arg),*) $(-> $need_ret)?,
            )*
            $(
                /// # Safety
                /// As its man page says.
                pub $may: Option<unsafe extern "C" fn($($may_arg),*) -> $may_ret>,
            )*
        }

        impl Library {
            fn resolve(handle: NonNull<c_void>) -> Result<Self> {
                Ok(Library {
                    $(
                        // SAFETY: the field has the function's type.
                        $need: unsafe { symbol(handle, concat!(stringify!($need), "\0")) }
                            .ok_or_else(|| missing(stringify!($need)))?,
                    )*
                    $(
                        // SAFETY: the field has the function's type.
                        $may: unsafe { symbol(handle, concat!(stringify!($may), "\0")) },
                    )*
                })
            }
        }
    };
}

functions! {
    needed {
        ibv_fork_init() -> c_int;
        ibv_get_device_list(*mut c_int) -> *mut *mut ibv_device;
        ibv_free_device_list(*mut *mut ibv_device);
        ibv_get_device_name(*mut ibv_device) -> *const c_char;
        ibv_open_device(*mut ibv_device) -> *mut ibv_context;
        ibv_close_device(*mut ibv_context) -> c_int;
        ibv_query_device(*mut ibv_context, *mut ibv_device_attr) -> c_int;
        ibv_query_port(*mut ibv_context, u8, *mut ibv_port_attr) -> c_int;
        ibv_query_gid(*mut ibv_context, u8, c_int, *mut ibv_gid) -> c_int;
        ibv_get_async_event(*mut ibv_context, *mut RawEvent) -> c_int;
        ibv_ack_async_event(*mut RawEvent);
        ibv_alloc_pd(*mut ibv_context) -> *mut ibv_pd;
        ibv_dealloc_pd(*mut ibv_pd) -> c_int;
        ibv_reg_mr(*mut ibv_pd, *mut c_void, usize, c_int) -> *mut ibv_mr;
        ibv_dereg_mr(*mut ibv_mr) -> c_int;
        ibv_create_comp_channel(*mut ibv_context) -> *mut ibv_comp_channel;
        ibv_destroy_comp_channel(*mut ibv_comp_channel) -> c_int;
        ibv_get_cq_event(*mut ibv_comp_channel, *mut *mut ibv_cq, *mut *mut c_void) -> c_int;
        ibv_ack_cq_events(*mut ibv_cq, c_uint);
        ibv_create_cq(*mut ibv_context, c_int, *mut c_void, *mut ibv_comp_channel, c_int) -> *mut ibv_cq;
        ibv_destroy_cq(*mut ibv_cq) -> c_int;
        ibv_create_qp(*mut ibv_pd, *mut ibv_qp_init_attr) -> *mut ibv_qp;
        ibv_destroy_qp(*mut ibv_qp) -> c_int;
        ibv_modify_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int) -> c_int;
        ibv_query_qp(*mut ibv_qp, *mut ibv_qp_attr, c_int, *mut ibv_qp_init_attr) -> c_int;
    }
    optional {
        _ibv_query_gid_ex(*mut ibv_context, u32, u32, *mut RawGidEntry, u32, usize) -> c_int;
        ibv_reg_mr_iova2(*mut ibv_pd, *mut c_void, usize, u64, c_uint) -> *mut ibv_mr;
        ibv_reg_dmabuf_mr(*mut ibv_pd, u64, usize, u64, c_int, c_int) -> *mut ibv_mr;
    }
}

// A context's own functions, which the header's inline functions call: they are no symbols.

/// Where the first refused work request goes.
type Refused = *mut *mut ibv_send_wr;
type RefusedRecv = *mut *mut ibv_recv_wr;
/// # Safety
/// As ibv_post_send(3) says.
pub(super) type PostSend = unsafe extern "C" fn(*mut ibv_qp, *mut ibv_send_wr, Refused) -> c_int;
/// # Safety
/// As ibv_post_recv(3) says.
pub(super) type PostRecv = unsafe extern "C" fn(*mut ibv_qp, *mut ibv_recv_wr, RefusedRecv) -> c_int;
/// # Safety
/// As ibv_poll_cq(3) says.
pub(super) type PollCq = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;
/// # Safety
/// As ibv_req_notify_cq(3) says.
pub(super) type NotifyCq = unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int;

/// Finds libibverbs and its functions, once per process. `ERR_DEVICE_NOT_FOUND` with the reason if it is not
/// installed or too old; a later call tries again.
pub fn load() -> Result<()> {
    library().map(|_| ())
}

/// The table; loads it when first called.
pub(super) fn library() -> Result<&'static Library> {
    static LIBRARY: PerProcess<OnceCell<Library>> = PerProcess::new(OnceCell::new);
    LIBRARY.get().get_or_try_init(|| {
        // SAFETY: a terminated string; the library's initialisers are the system's own.
        let handle = unsafe { libc::dlopen(FILE.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| {
            Error::new(
                Code::DeviceNotFound,
                format!(
                    "cannot load libibverbs.so.1, without which no RDMA device can be used: {}; install the \
                     packages libibverbs1 and ibverbs-providers (rdma-core on RPM systems)",
                    last_dl_error()
                ),
            )
        })?;
        let library = Library::resolve(handle)?;
        // SAFETY: no arguments. Must come before the first registration.
        let refused = unsafe { (library.ibv_fork_init)() };
        if refused != 0 {
            tracing::debug!(
                "ibv_fork_init: {}; registered memory is not safe across fork",
                io::Error::from_raw_os_error(returned_errno(refused))
            );
        }
        Ok(library)
    })
}

fn missing(name: &str) -> Error {
    let text = format!(
        "libibverbs.so.1 has no function {name}: it is damaged or too old; install rdma-core 17 or newer"
    );
    Error::new(Code::DeviceNotFound, text)
}

/// The function called `name`, which ends in NUL.
///
/// # Safety
/// `T` is the function pointer type of that symbol.
unsafe fn symbol<T: Copy>(handle: NonNull<c_void>, name: &'static str) -> Option<T> {
    const { assert!(size_of::<T>() == size_of::<*mut c_void>()) };
    // SAFETY: an open library and a terminated string.
    let address = NonNull::new(unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr().cast()) })?;
    // SAFETY: of pointer size, as asserted; the caller vouches for the type.
    Some(unsafe { std::mem::transmute_copy(&address) })
}

fn last_dl_error() -> String {
    // SAFETY: no arguments; the text belongs to this thread until its next dl call.
    let text = unsafe { libc::dlerror() };
    if text.is_null() {
        return "no reason given".into();
    }
    // SAFETY: not null, so a terminated string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The errno of the call just made on this thread.
pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// The errno that a verb returned: positive by the man pages, negative or -1 with errno by some drivers.
pub(super) fn returned_errno(returned: c_int) -> i32 {
    match returned {
        -1 => last_errno(),
        other => other.saturating_abs(),
    }
}

/// `code` for a refused call, with its errno.
pub(super) fn refused(code: Code, what: impl std::fmt::Display, errno: i32) -> Error {
    Error::io(code, what, &io::Error::from_raw_os_error(errno))
}

/// Notes that `what` could not be released.
pub(super) fn note_leak(what: &str, device: &str, returned: c_int) {
    if returned != 0 {
        let error = io::Error::from_raw_os_error(returned_errno(returned));
        tracing::debug!("{device}: {what} is left behind: {error}");
    }
}
