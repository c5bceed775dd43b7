//! Ground floor: threads, the control plane's event loop, handle tables, fork handling.

pub mod aside;
pub mod backoff;
pub mod blocking;
pub mod clock;
pub mod control;
pub mod crowd;
pub mod descriptors;
pub mod epoll;
pub mod fork;
pub mod gate;
pub mod headroom;
pub mod instant;
pub mod interfaces;
pub mod line;
pub mod outstanding;
pub mod per_process;
pub mod poll;
pub mod ports;
pub mod reactor;
pub mod resolve;
pub mod signals;
pub mod slots;
pub mod sockets;
pub mod sync;
pub mod thread;
pub mod tracked;
pub mod wakeup;

/// A future that may be polled on any thread.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send + 'a>>;
