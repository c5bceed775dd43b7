//! The settings of now.

use crate::config::Config;
use crate::observe::log;

/// Reads the environment, sets the log up, and logs warnings about what was read.
pub(super) fn settings() -> Config {
    let (config, warnings) = Config::from_env();
    log::init(&config, &warnings);
    config
}
