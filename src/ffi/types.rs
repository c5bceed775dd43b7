//! Types and constants of `transfer_engine_c.h`. Layouts are upstream's; a test compares them.
// Constants and structs that only the generated headers use.
#![allow(dead_code)]

use std::ffi::{c_char, c_int, c_void};

/// Opaque engine handle; NULL is no engine.
pub type transfer_engine_t = *mut c_void;
/// Opaque transport handle, owned by the engine.
pub type transport_t = *mut c_void;
/// Segment id: 0 is the own segment, others count from 1.
pub type segment_id_t = i32;
/// Batch id; opaque.
pub type batch_id_t = u64;

/// The engine's own segment.
pub const LOCAL_SEGMENT: c_int = 0;
/// What `allocateBatchID` returns on failure.
pub const INVALID_BATCH: u64 = u64::MAX;

/// Remote memory to local memory.
pub const OPCODE_READ: c_int = 0;
/// Local memory to remote memory.
pub const OPCODE_WRITE: c_int = 1;

/// Not finished.
pub const STATUS_WAITING: c_int = 0;
/// Not used.
pub const STATUS_PENDING: c_int = 1;
/// Not used.
pub const STATUS_INVALID: c_int = 2;
/// Not used.
pub const STATUS_CANCELED: c_int = 3;
/// Every byte is at its destination.
pub const STATUS_COMPLETED: c_int = 4;
/// Only with MC_REPORT_TIMEOUT set: ran out of time.
pub const STATUS_TIMEOUT: c_int = 5;
/// Ended without success; `mte_task_error` says why.
pub const STATUS_FAILED: c_int = 6;

/// One block to move.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct transfer_request {
    /// OPCODE_READ or OPCODE_WRITE.
    pub opcode: c_int,
    /// Local address, in registered memory.
    pub source: *mut c_void,
    /// Segment id from openSegment, or LOCAL_SEGMENT.
    pub target_id: segment_id_t,
    /// Address in the target's memory.
    pub target_offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A short message to another engine.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct notify_msg {
    /// NUL-terminated.
    pub name: *mut c_char,
    /// NUL-terminated.
    pub msg: *mut c_char,
}

/// State of a task.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct transfer_status {
    /// STATUS_*.
    pub status: c_int,
    /// Bytes moved so far; the request's length once COMPLETED.
    pub transferred_bytes: u64,
}

/// Not used by any function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct segment_desc_rdma {
    /// First byte.
    pub addr: *mut c_void,
    /// Bytes.
    pub size: u64,
    /// Memory location.
    pub location: *const c_char,
}

/// Not used by any function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct segment_desc_nvmeof {
    /// Path of the file.
    pub file_path: *const c_char,
    /// NVMe subsystem.
    pub subsystem_name: *const c_char,
    /// Transport protocol.
    pub proto: *const c_char,
    /// Address.
    pub ip: *const c_char,
    /// Port.
    pub port: u64,
}

/// Not used by any function.
#[repr(C)]
#[derive(Clone, Copy)]
pub union segment_desc_body {
    /// Memory segment.
    pub rdma: segment_desc_rdma,
    /// File segment.
    pub nvmeof: segment_desc_nvmeof,
}

/// Not used by any function; kept for programs that name it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct segment_desc {
    /// Kind of segment.
    pub r#type: c_int,
    /// By kind.
    pub desc_: segment_desc_body,
}

/// A region for registerLocalMemoryBatch.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct buffer_entry {
    /// First byte.
    pub addr: *mut c_void,
    /// Bytes.
    pub length: usize,
}

/// Load of one NIC.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct nic_load_stat {
    /// NUL-terminated device name.
    pub device_name: [c_char; 64],
    /// Bytes posted and not completed.
    pub inflight_bytes: u64,
    /// Measured bandwidth, bytes per second.
    pub ewma_bandwidth_bps: f64,
}

/// `struct notify_msg`.
pub type notify_msg_t = notify_msg;
/// `struct buffer_entry`.
pub type buffer_entry_t = buffer_entry;
/// `struct nic_load_stat`.
pub type nic_load_stat_t = nic_load_stat;
