//! The control port that every engine listens on: connection set-up, descriptor exchange, notifications and
//! probes, one request and one reply per TCP connection. Everything here runs on the control thread.

pub mod client;
mod clients;
mod document;
pub mod messages;
pub mod server;
pub mod wire;

pub use client::Client;
pub use document::Document;
pub use messages::{ConnectionMessage, Notification};
pub use server::{serve, Handler, Limits};
