//! What the library tells about itself: log lines.

pub mod log;
