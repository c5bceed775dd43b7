// The table of error codes. `build.rs` includes this file too and prints
// `include/error.h` from it, so it depends on nothing.

/// One row: value, C name, meaning.
pub struct Row {
    /// Value that C functions return.
    pub value: i32,
    /// Macro name in `error.h`; printed by `build.rs`.
    #[allow(dead_code)]
    pub name: &'static str,
    /// What it means, in one phrase.
    pub meaning: &'static str,
    /// A blank line precedes this row in `error.h`; printed by `build.rs`.
    #[allow(dead_code)]
    pub group_start: bool,
}

macro_rules! codes {
    ($($(#[$group:ident])? $variant:ident = $value:literal, $name:literal, $meaning:literal;)*) => {
        /// A code of `error.h`; what every integer-returning C function gives on failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code {
            $(#[doc = $meaning] $variant = $value,)*
        }

        /// Every code, in the order of `error.h`.
        pub const TABLE: &[Row] = &[
            $(Row {
                value: $value,
                name: $name,
                meaning: $meaning,
                group_start: codes!(@group $($group)?),
            },)*
        ];
    };
    (@group group) => { true };
    (@group) => { false };
}

codes! {
    InvalidArgument = -1, "ERR_INVALID_ARGUMENT", "invalid argument";
    TooManyRequests = -2, "ERR_TOO_MANY_REQUESTS", "more requests than the batch was allocated for";
    AddressNotRegistered = -3, "ERR_ADDRESS_NOT_REGISTERED", "source or target address not registered";
    BatchBusy = -4, "ERR_BATCH_BUSY", "batch still executes requests";
    DeviceNotFound = -6, "ERR_DEVICE_NOT_FOUND", "no usable device to execute the request";
    AddressOverlapped = -7, "ERR_ADDRESS_OVERLAPPED", "memory regions overlap";
    #[group] Dns = -101, "ERR_DNS", "host name cannot be resolved";
    Socket = -102, "ERR_SOCKET", "socket error";
    MalformedJson = -103, "ERR_MALFORMED_JSON", "malformed handshake or descriptor data";
    RejectHandshake = -104, "ERR_REJECT_HANDSHAKE", "peer refused the handshake";
    #[group] Metadata = -200, "ERR_METADATA", "metadata exchange failed";
    Endpoint = -201, "ERR_ENDPOINT", "creating or using an RDMA endpoint failed";
    Context = -202, "ERR_CONTEXT", "opening or using an RDMA device failed";
    #[group] Numa = -300, "ERR_NUMA", "system has no NUMA interface";
    Clock = -301, "ERR_CLOCK", "system has no usable clock";
    Memory = -302, "ERR_MEMORY", "out of memory";
    NotImplemented = -303, "ERR_NOT_IMPLEMENTED", "not implemented in this build";
}
