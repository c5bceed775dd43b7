//! What the fuzz targets need of this transport: GIDs, and replies to connection requests.

use super::{connect, gid};
use crate::error::Result;
use crate::handshake::ConnectionMessage;

/// The GID that `text` is, as text; `None` if it is none.
pub fn gid(text: &str) -> Option<String> {
    gid::parse(text).map(|gid| gid::text(&gid))
}

/// Whether `reply` accepts `request`.
pub fn check_reply(request: &ConnectionMessage, reply: &ConnectionMessage) -> Result<()> {
    connect::check_reply(request, reply)
}
