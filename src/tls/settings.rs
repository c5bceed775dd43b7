//! The settings of TLS between engines. Whatever is wrong with them keeps an engine from being created: one that was to have TLS
//! never runs without it.

use std::io::Read;

use super::ends::{Ends, CA, CERT, KEY};
use crate::config::{Config, Pem};
use crate::error::{Code, Error, Result};

/// Longest file, bytes. Chosen: hundreds of certificates.
const FILE_LIMIT: u64 = 1 << 20;

/// Reads the files that the settings name. An error if they cannot be used, or if the environment says otherwise that there
/// should be some.
pub fn settle(config: &mut Config) -> Result<()> {
    let strangers = Config::strangers();
    let misspelt = |meant: Option<&str>| meant.is_some_and(|name| name.starts_with(PREFIX));
    let names = strangers.iter().filter(|stranger| is_like(&stranger.name) || misspelt(stranger.meant));
    settle_among(config, names.map(|stranger| stranger.name.as_str()))
}

/// What the names of these settings begin with.
const PREFIX: &str = "MC_TLS_";

/// It looks like one of these settings, in any letters.
fn is_like(name: &str) -> bool {
    name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// As [`settle`], where `strangers` are names in the environment that no setting has, and that look like these.
pub(super) fn settle_among<'a>(
    config: &mut Config,
    mut strangers: impl Iterator<Item = &'a str>,
) -> Result<()> {
    if let Some(name) = strangers.next() {
        return Err(Error::invalid(format!(
            "{name} is no setting; is {CA}, {CERT} or {KEY} meant? no engine starts that may lack its TLS"
        )));
    }
    let files =
        [(CA, &mut config.tls_ca_file), (CERT, &mut config.tls_cert_file), (KEY, &mut config.tls_key_file)];
    let missing: Vec<&str> = files.iter().filter(|(_, file)| file.is_none()).map(|(name, _)| *name).collect();
    match (missing.len(), config.tls_required) {
        (0, _) => {}
        (3, Some(true)) => {
            return Err(Error::invalid(format!("MC_TLS_REQUIRED=1, and there is no {CA}, {CERT} and {KEY}")))
        }
        (3, _) => return Ok(()),
        _ => {
            let missing = missing.join(" and ");
            return Err(Error::invalid(format!(
                "{missing} is not set; TLS between engines needs {CA}, {CERT} and {KEY}: set all three, or none"
            )));
        }
    }
    for (name, file) in files {
        if let Some(file) = file.as_mut().filter(|file| file.text.is_none()) {
            file.text = Some(read(name, file)?);
        }
    }
    Ends::new(config).map(drop)
}

fn read(name: &str, file: &Pem) -> Result<Vec<u8>> {
    let path = &file.path;
    let failed =
        |e: &std::io::Error| Error::io(Code::InvalidArgument, format!("cannot read {name} '{path}'"), e);
    let opened = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let mut text = Vec::new();
    opened.take(FILE_LIMIT + 1).read_to_end(&mut text).map_err(|e| failed(&e))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(Error::invalid(format!(
            "{name} '{path}' has more than {FILE_LIMIT} bytes; is it the right file?"
        )));
    }
    Ok(text)
}
