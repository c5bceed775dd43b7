//! What the library tells about itself: log lines, counters and histograms, and the port where others read them.

pub mod durations;
pub mod endpoint;
pub mod histogram;
pub mod log;
pub mod page;
pub mod sink;
