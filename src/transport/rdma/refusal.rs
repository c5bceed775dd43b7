//! What the two sides of a handshake have in common: limits, and the words in refusals by which passing ones are known.

/// Queue pair numbers have 24 bits in packets.
pub(super) const LAST_QP_NUMBER: u32 = 0xff_ffff;

/// Marks refusals after which the peer's descriptor is worth reading again.
pub(super) const STALE: &str = "incarnation";
/// In the refusal of a link-local GID. A port has only that one for a moment while its address changes.
pub(super) const LINK_LOCAL: &str = "is link-local";
/// In the refusal of a ready message that came after the connection was evicted.
pub(super) const UNKNOWN: &str = "a connection that does not exist";
