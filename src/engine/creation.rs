//! What is installed when an engine is created.

use std::sync::Arc;

use super::Engine;
use crate::error::{Error, Result};
use crate::transport::table::{self, PROTOCOLS};

/// The word for [`Wanted::Suitable`].
const SUITABLE: &str = "auto";

/// The transports that whoever creates an engine wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted<'a> {
    /// None yet: they are installed by calls.
    None,
    /// The one that suits this machine.
    Suitable,
    /// These, separated by commas.
    Named(&'a str),
}

impl<'a> Wanted<'a> {
    /// Reads what C passes: nothing, "auto", or names.
    pub fn parse(text: &'a str) -> Self {
        match text.trim() {
            "" => Wanted::None,
            SUITABLE => Wanted::Suitable,
            names => Wanted::Named(names),
        }
    }
}

impl Engine {
    /// Installs what is wanted, all of it, or else nothing of the engine is left.
    pub(super) fn install_wanted(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<()> {
        match wanted {
            Wanted::None if table::installed_at_creation(&self.config).is_none() => Ok(()),
            Wanted::None | Wanted::Suitable => self.install_unasked(),
            Wanted::Named(names) => {
                let mut names = names.split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
                if names.peek().is_none() {
                    return Err(Error::invalid("the list of transports names none"));
                }
                names.try_for_each(|name| self.install_transport(name, None).map(drop))
            }
        }
    }

    /// The name of an installed transport, as [`Engine::install_transport`] gives it; -1 if it is not installed or does not
    /// exist.
    pub fn installed(&self, protocol: &str) -> Result<&'static str> {
        let row = table::position(protocol).ok_or_else(|| table::not_here(protocol))?;
        let installed = self.transports().get(row);
        installed.map(|_| PROTOCOLS[row].name()).ok_or_else(|| {
            Error::invalid(format!("transport '{protocol}' is not installed; call installTransport first"))
        })
    }

    /// Whether this one is installed and no other that anybody else knows.
    pub fn has_only(&self, protocol: &str) -> bool {
        let counts = |row: &usize| PROTOCOLS[*row].name() == protocol || !PROTOCOLS[*row].is_extension();
        let installed = (0..PROTOCOLS.len()).filter(|row| self.transports().get(*row).is_some());
        let mut names = installed.filter(counts).map(|row| PROTOCOLS[row].name());
        names.next() == Some(protocol) && names.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn what_is_wanted_is_installed_at_creation_or_creation_fails() {
        let create = |wanted| Engine::create_with("P2PHANDSHAKE", "127.0.0.1", Wanted::parse(wanted), "");
        let engine = create("").unwrap();
        assert_eq!(engine.installed("tcp").unwrap_err().code(), Code::InvalidArgument);
        assert!(!engine.has_only("tcp"));
        engine.destroy();
        let engine = create(" tcp ,").unwrap();
        assert_eq!(engine.installed("tcp").unwrap(), "tcp");
        assert!(engine.has_only("tcp"));
        engine.destroy();
        for (bad, code) in
            [(",", Code::InvalidArgument), ("warp", Code::InvalidArgument), ("tcp,efa", Code::NotImplemented)]
        {
            let Err(error) = create(bad) else { panic!("'{bad}' created an engine") };
            assert_eq!(error.code(), code, "{error}");
        }
    }
}
