//! The one error type: a code of `error.h`, the data a caller branches on, and a
//! sentence that says what was tried, where, and what to do about it.

#[allow(missing_docs)]
pub mod codes;

use std::fmt;
use std::sync::Arc;

pub use codes::Code;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was; stable numbers, `MTE_CLASS_*` in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Class {
    /// The caller passed something wrong.
    Argument = 1,
    /// A limit of this process or machine: memory, descriptors, a full table.
    Resource = 2,
    /// Connecting, sending or receiving failed.
    Network = 3,
    /// A deadline passed.
    Timeout = 4,
    /// The peer understood and refused.
    Rejected = 5,
    /// The peer sent something that is not the protocol.
    Protocol = 6,
    /// The metadata store or descriptor exchange failed.
    Metadata = 7,
    /// A NIC or its driver failed, or none is usable.
    Device = 8,
    /// The engine is being destroyed, or the region was unregistered meanwhile.
    Canceled = 9,
    /// This build does not have it.
    Unsupported = 10,
    /// A bug of this library.
    Internal = 11,
}

impl Class {
    /// One more than the highest number.
    pub const COUNT: usize = 12;

    /// Each, with its name in metrics.
    pub const NAMES: [(Class, &'static str); Self::COUNT - 1] = [
        (Class::Argument, "argument"),
        (Class::Resource, "resource"),
        (Class::Network, "network"),
        (Class::Timeout, "timeout"),
        (Class::Rejected, "rejected"),
        (Class::Protocol, "protocol"),
        (Class::Metadata, "metadata"),
        (Class::Device, "device"),
        (Class::Canceled, "canceled"),
        (Class::Unsupported, "unsupported"),
        (Class::Internal, "internal"),
    ];
}

/// A failure, cheap to move and to clone (one pointer).
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    code: Code,
    class: Class,
    retryable: bool,
    errno: i32,
    peer: String,
    rail: String,
    text: String,
}

impl Error {
    /// A failure with the class that usually goes with `code`.
    pub fn new(code: Code, text: impl Into<String>) -> Self {
        let (class, retryable) = usual_class(code);
        Error(Arc::new(Inner {
            code,
            class,
            retryable,
            errno: 0,
            peer: String::new(),
            rail: String::new(),
            text: text.into(),
        }))
    }

    /// `ERR_INVALID_ARGUMENT` with `text`.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, text)
    }

    /// `ERR_MEMORY` for an allocation of `what`.
    pub fn out_of_memory(what: &str) -> Self {
        Self::new(Code::Memory, format!("out of memory for {what}; allocate less at once"))
    }

    /// `code` from an I/O error; keeps its errno and appends its text.
    pub fn io(code: Code, what: impl fmt::Display, error: &std::io::Error) -> Self {
        let mut e = Self::new(code, format!("{what}: {error}"));
        let inner = Arc::make_mut(&mut e.0);
        inner.errno = error.raw_os_error().unwrap_or(0);
        if error.kind() == std::io::ErrorKind::TimedOut {
            inner.class = Class::Timeout;
        }
        e
    }

    /// Replaces the class; trying again may help.
    pub fn transient(self, class: Class) -> Self {
        self.classed(class, true)
    }

    /// Replaces the class; trying again as it is does not help.
    pub fn permanent(self, class: Class) -> Self {
        self.classed(class, false)
    }

    fn classed(mut self, class: Class, retryable: bool) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.class = class;
        inner.retryable = retryable;
        self
    }

    /// Names the peer that was talked to.
    pub fn peer(mut self, peer: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).peer = peer.into();
        self
    }

    /// Names the connection that failed: its local end, then `->`, then the peer's.
    pub fn rail(mut self, rail: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).rail = rail.into();
        self
    }

    /// Puts `what` in front of the text: what was tried when this happened.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.text = format!("{what}: {}", inner.text);
        self
    }

    /// The `error.h` code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The kind of failure.
    pub fn kind(&self) -> Class {
        self.0.class
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// The operating system's errno, or 0.
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    /// The peer's name or address, or "".
    pub fn peer_name(&self) -> &str {
        &self.0.peer
    }

    /// The connection that failed, or "".
    pub fn rail_name(&self) -> &str {
        &self.0.rail
    }

    /// The whole sentence.
    pub fn text(&self) -> &str {
        &self.0.text
    }
}

fn usual_class(code: Code) -> (Class, bool) {
    match code {
        Code::InvalidArgument
        | Code::TooManyRequests
        | Code::AddressNotRegistered
        | Code::AddressOverlapped => (Class::Argument, false),
        Code::BatchBusy => (Class::Argument, true),
        Code::DeviceNotFound | Code::Endpoint | Code::Context => (Class::Device, false),
        Code::Dns | Code::Socket => (Class::Network, true),
        Code::MalformedJson => (Class::Protocol, false),
        Code::RejectHandshake => (Class::Rejected, false),
        Code::Metadata => (Class::Metadata, true),
        Code::Numa | Code::Clock | Code::NotImplemented => (Class::Unsupported, false),
        Code::Memory => (Class::Resource, true),
    }
}

/// The phrase for a code, also for 0 and for values that are no code.
pub fn describe(value: i32) -> &'static str {
    if value == 0 {
        return "success";
    }
    codes::TABLE.iter().find(|row| row.value == value).map_or("unknown error code", |row| row.meaning)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.peer.is_empty() || self.0.text.contains(&self.0.peer) {
            f.write_str(&self.0.text)
        } else {
            write!(f, "{} [peer {}]", self.0.text, self.0.peer)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}: {self}", self.0.code, self.0.class)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_phrase_and_values_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for row in codes::TABLE {
            assert!(row.value < 0 && seen.insert(row.value), "{}", row.name);
            assert_eq!(describe(row.value), row.meaning);
        }
        assert_eq!(describe(0), "success");
        assert_eq!(describe(-5), "unknown error code");
    }

    #[test]
    fn context_goes_in_front_and_errno_is_kept() {
        let io = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
        let e = Error::io(Code::Socket, "connect", &io).peer("10.0.0.1:15000").context("open segment");
        assert_eq!(e.errno(), libc::ECONNREFUSED);
        assert!(e.text().starts_with("open segment: connect: "));
        assert!(e.to_string().ends_with("[peer 10.0.0.1:15000]"));
    }
}
