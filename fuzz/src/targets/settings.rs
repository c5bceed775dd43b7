//! Settings: lines of `NAME=value`, as environment variables.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use transfer_engine::config::{Config, ROWS};

use super::memory::bounded;

/// Texts are copied, and repeated in warnings.
const PER_BYTE: usize = 64;

/// Words in the names of settings that nothing repeats.
const SECRETS: &[&str] = &["PASSWORD", "TOKEN"];

/// Any text is taken or warned about, secrets are never shown, and what is not set is the default.
pub fn run(bytes: &[u8]) {
    let lines: Vec<(&str, &OsStr)> = bytes.split(|byte| *byte == b'\n').filter_map(pair).collect();
    bounded(bytes, PER_BYTE, || {
        let find = |name: &str| {
            lines.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let (mut config, warnings) = Config::read(find);
        assert!(warnings.len() <= 2 * lines.len(), "{warnings:?}");
        assert!(config.min_rpc_port <= config.max_rpc_port);
        let shown = format!("{config:?}{warnings:?}");
        let secret = |name: &str| {
            SECRETS.iter().any(|word| name.contains(word)) && ROWS.iter().any(|row| row.name == name)
        };
        for (_, value) in lines.iter().filter(|(name, _)| secret(name)) {
            let text = value.to_string_lossy();
            let is_alone = String::from_utf8_lossy(bytes).matches(&*text).count() == 1;
            assert!(!is_alone || !text.starts_with("secret-") || !shown.contains(&*text), "{shown}");
        }
        let few = config.leave_descriptors(64);
        assert!(few.is_some() && config.handshake_max_clients > 0 && config.tcp_max_inbound > 0);
    });
}

fn pair(line: &[u8]) -> Option<(&str, &OsStr)> {
    let at = line.iter().position(|byte| *byte == b'=')?;
    Some((std::str::from_utf8(&line[..at]).ok()?, OsStr::from_bytes(&line[at + 1..])))
}
