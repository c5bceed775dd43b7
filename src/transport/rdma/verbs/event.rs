//! What a device reports by itself, as opposed to completions.

#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use rdma_sys::{ibv_async_event, ibv_qp};

/// An asynchronous event of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// The queue pair is broken.
    QpFatal {
        /// Its number.
        qp_number: u32,
    },
    /// Something else about a queue pair.
    QpOther {
        /// Its number.
        qp_number: u32,
        /// `enum ibv_event_type`.
        event: u32,
    },
    /// A completion queue overran or broke.
    CqError,
    /// The device is broken.
    DeviceFatal,
    /// The port came up.
    PortActive(u8),
    /// The port went down.
    PortError(u8),
    /// The port's LID changed.
    LidChange(u8),
    /// The port's GID table changed.
    GidChange(u8),
    /// Any other `enum ibv_event_type`.
    Other(u32),
}

/// Names of `enum ibv_event_type`, by value.
const NAMES: [&str; 20] = [
    "CQ_ERR",
    "QP_FATAL",
    "QP_REQ_ERR",
    "QP_ACCESS_ERR",
    "COMM_EST",
    "SQ_DRAINED",
    "PATH_MIG",
    "PATH_MIG_ERR",
    "DEVICE_FATAL",
    "PORT_ACTIVE",
    "PORT_ERR",
    "LID_CHANGE",
    "PKEY_CHANGE",
    "SM_CHANGE",
    "SRQ_ERR",
    "SRQ_LIMIT_REACHED",
    "QP_LAST_WQE_REACHED",
    "CLIENT_REREGISTER",
    "GID_CHANGE",
    "WQ_FATAL",
];

/// Values of `enum ibv_event_type`; the next eight too.
const CQ_ERR: u32 = 0;
const QP_FATAL: u32 = 1;
const PATH_MIG_ERR: u32 = 7;
const DEVICE_FATAL: u32 = 8;
const PORT_ACTIVE: u32 = 9;
const PORT_ERR: u32 = 10;
const LID_CHANGE: u32 = 11;
const QP_LAST_WQE_REACHED: u32 = 16;
const GID_CHANGE: u32 = 18;

impl AsyncEvent {
    /// The event's name in `<infiniband/verbs.h>`, and what it is about: `QP_FATAL of queue pair 0x12`.
    pub fn name(&self) -> String {
        let of_port = |event, port| format!("{} of port {port}", event_name(event));
        match *self {
            AsyncEvent::QpFatal { qp_number } => {
                format!("{} of queue pair {qp_number:#x}", event_name(QP_FATAL))
            }
            AsyncEvent::QpOther { qp_number, event } => {
                format!("{} of queue pair {qp_number:#x}", event_name(event))
            }
            AsyncEvent::CqError => event_name(CQ_ERR),
            AsyncEvent::DeviceFatal => event_name(DEVICE_FATAL),
            AsyncEvent::PortActive(port) => of_port(PORT_ACTIVE, port),
            AsyncEvent::PortError(port) => of_port(PORT_ERR, port),
            AsyncEvent::LidChange(port) => of_port(LID_CHANGE, port),
            AsyncEvent::GidChange(port) => of_port(GID_CHANGE, port),
            AsyncEvent::Other(event) => event_name(event),
        }
    }
}

fn event_name(event: u32) -> String {
    let name = usize::try_from(event).ok().and_then(|event| NAMES.get(event));
    name.map_or_else(|| format!("event {event}"), |name| name.to_string())
}

/// `struct ibv_async_event`, whose type is a number: rdma-sys' enum would be undefined behaviour for new events.
#[repr(C)]
pub(super) struct RawEvent {
    element: Element,
    kind: u32,
}

#[repr(C)]
union Element {
    qp: *mut ibv_qp,
    port: c_int,
}

const _: () = assert!(size_of::<RawEvent>() == size_of::<ibv_async_event>());
const _: () =
    assert!(std::mem::offset_of!(RawEvent, kind) == std::mem::offset_of!(ibv_async_event, event_type));

impl RawEvent {
    pub(super) fn empty() -> Self {
        RawEvent { element: Element { qp: ptr::null_mut() }, kind: u32::MAX }
    }

    /// Reads it.
    ///
    /// # Safety
    /// Filled by ibv_get_async_event and not acknowledged yet: until then its queue pair cannot be destroyed.
    pub(super) unsafe fn read(&self) -> AsyncEvent {
        match self.kind {
            CQ_ERR => AsyncEvent::CqError,
            // SAFETY: the event is about a queue pair; passed on to the caller.
            QP_FATAL => AsyncEvent::QpFatal { qp_number: unsafe { self.qp_number() } },
            event @ (QP_FATAL..=PATH_MIG_ERR | QP_LAST_WQE_REACHED) => {
                // SAFETY: the event is about a queue pair; passed on to the caller.
                AsyncEvent::QpOther { qp_number: unsafe { self.qp_number() }, event }
            }
            DEVICE_FATAL => AsyncEvent::DeviceFatal,
            PORT_ACTIVE => AsyncEvent::PortActive(self.port()),
            PORT_ERR => AsyncEvent::PortError(self.port()),
            LID_CHANGE => AsyncEvent::LidChange(self.port()),
            GID_CHANGE => AsyncEvent::GidChange(self.port()),
            event => AsyncEvent::Other(event),
        }
    }

    /// # Safety
    /// As [`RawEvent::read`]; the event is about a queue pair.
    unsafe fn qp_number(&self) -> u32 {
        // SAFETY: the member of this event; every bit pattern is a raw pointer.
        let qp = unsafe { self.element.qp };
        if qp.is_null() {
            return 0;
        }
        // SAFETY: alive until the event is acknowledged; its number never changes.
        unsafe { (*qp).qp_num }
    }

    fn port(&self) -> u8 {
        // SAFETY: written by `empty` or the driver; every bit pattern is a number.
        u8::try_from(unsafe { self.element.port }).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_named_as_in_the_header_and_unknown_ones_by_number() {
        assert_eq!(AsyncEvent::GidChange(1).name(), "GID_CHANGE of port 1");
        assert_eq!(AsyncEvent::QpFatal { qp_number: 18 }.name(), "QP_FATAL of queue pair 0x12");
        assert_eq!(AsyncEvent::Other(19).name(), "WQ_FATAL");
        assert_eq!(AsyncEvent::Other(1234).name(), "event 1234");
    }

    #[test]
    fn an_event_of_a_newer_driver_is_carried_as_a_number() {
        let event = RawEvent { element: Element { port: 3 }, kind: 77 };
        // SAFETY: not about a queue pair.
        assert_eq!(unsafe { event.read() }, AsyncEvent::Other(77));
        let event = RawEvent { element: Element { port: 3 }, kind: PORT_ERR };
        // SAFETY: not about a queue pair.
        assert_eq!(unsafe { event.read() }, AsyncEvent::PortError(3));
    }
}
