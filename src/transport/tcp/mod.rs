//! The TCP transport: payload over kernel sockets, both framings, both roles.

mod accept;
mod ahead;
mod choice;
mod connect;
mod door;
mod ends;
mod exchange;
mod faults;
mod fence;
mod inbound;
mod iov;
mod lane;
mod link;
mod liveness;
mod nics;
mod offer;
mod parked;
mod path;
mod pipeline;
mod rail;
mod reactor;
mod replies;
mod request;
mod row;
mod secure;
mod shared;
mod sock;
mod stats;
mod table;
mod transport;
mod trial;
mod waiting;
pub mod wire;

pub use row::Row;
