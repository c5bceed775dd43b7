//! The transport to engines on the same host. Each side only reads the memory of the other and writes its own: a READ is pulled
//! by the engine that asks for it, a WRITE by the engine that it goes to. So nobody writes into memory of others, and one that
//! is stopped cannot do so late.

mod awaited;
mod board;
mod connect;
mod ends;
mod errors;
#[cfg(feature = "internals")]
pub mod fuzz;
mod grants;
mod host;
mod inbound;
mod kernel;
mod lane;
mod link;
mod mapped;
mod offer;
mod pull;
mod reactor;
mod ring;
mod row;
mod shared;
mod sharing;
mod stats;
mod transport;
mod wire;

pub use row::Row;
