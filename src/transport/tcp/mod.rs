//! The TCP transport: payload over kernel sockets, both framings, both roles.

mod accept;
mod ahead;
mod connect;
mod ends;
mod exchange;
mod faults;
mod fence;
mod inbound;
mod lane;
mod link;
mod liveness;
mod offer;
mod parked;
mod pipeline;
mod reactor;
mod replies;
mod request;
mod row;
mod shared;
mod sock;
mod stats;
mod table;
mod transport;
pub mod wire;

pub use row::Row;
