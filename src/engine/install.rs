//! Installing transports: the one that the caller names, or the one that suits this machine.

use std::sync::Arc;

use super::host::EngineHost;
use super::Engine;
use crate::error::Result;
use crate::topology::Matrix;
use crate::transport::table::{self, PROTOCOLS};

impl Engine {
    /// Installs `protocol`, once; `matrix` is the NIC priority matrix as JSON text. -1 for an
    /// unknown protocol, -303 for one this build lacks, -103 for a malformed matrix, -6 without a usable NIC: then the
    /// engine stays as it was. -200 if the store does not take the descriptor: the transport is installed all the
    /// same, and the descriptor is published in the background or by the same call again.
    pub fn install_transport(self: &Arc<Self>, protocol: &str, matrix: Option<&str>) -> Result<&'static str> {
        let matrix = matrix.map(Matrix::parse).transpose()?;
        let row = table::position(protocol).ok_or_else(|| table::not_here(protocol))?;
        let name = PROTOCOLS[row].name();
        let _alone = self.transports().alone();
        if self.transports().get(row).is_some() {
            if matrix.is_some() {
                tracing::warn!(
                    "transport '{name}' is installed already; the new NIC priority matrix is not used"
                );
            }
            if self.is_behind() {
                self.publish()?;
            }
            return Ok(name);
        }
        self.listen()?;
        let is_first = self.transports().is_empty();
        self.make_transport(row, matrix).map_err(|e| e.context(format!("install {name}")))?;
        if is_first {
            self.make_beside(row);
        }
        self.publish().inspect_err(|_| self.publish_soon())?;
        Ok(name)
    }

    /// Installs what the settings want beside the transport of `row`. It is one way more, so a failure is only told.
    fn make_beside(self: &Arc<Self>, row: usize) {
        let beside = table::installed_beside(&self.config).filter_map(table::position);
        for beside in beside.filter(|beside| *beside != row) {
            if let Err(error) = self.make_transport(beside, None) {
                tracing::warn!("{} is not installed: {error}", PROTOCOLS[beside].name());
            }
        }
    }

    /// Makes the transport, has it prepare every region that is registered already, and only then installs it.
    fn make_transport(self: &Arc<Self>, row: usize, given: Option<Matrix>) -> Result<()> {
        let protocol = PROTOCOLS[row];
        let topology = match (given, protocol.needs_nics()) {
            (Some(matrix), _) => Some((matrix, "args[0]")),
            (None, true) => Some(self.topology_in_use()?),
            (None, false) => None,
        };
        let nics = topology.as_ref().filter(|_| protocol.needs_nics());
        let made = protocol.install(EngineHost::new(self), nics.map(|(matrix, _)| matrix));
        let made = made.map_err(|error| match nics {
            Some((matrix, origin)) => error.context(format!("{} (from {origin})", nics_of(matrix))),
            None => error,
        })?;
        let regions = self.local.registry.all().inspect_err(|_| made.stop())?;
        if let Err(error) = made.register(&regions) {
            made.stop();
            return Err(error.context(format!("{} regions were registered before", regions.len())));
        }
        self.transports().set(row, made);
        if let Some((matrix, origin)) = topology {
            self.set_topology(matrix, origin);
        }
        Ok(())
    }

    /// Installs the one transport that suits this machine, as upstream does: the one that the settings ask for, else
    /// the first that needs no NIC or finds one.
    pub(super) fn install_unasked(self: &Arc<Self>) -> Result<()> {
        if let Some(name) = table::installed_at_creation(&self.config) {
            return self.install_transport(name, None).map(drop);
        }
        let (matrix, origin) = self.found_topology();
        let found = matrix.names();
        tracing::info!("topology from {origin}: {} NICs {found:?}", found.len());
        self.set_topology(matrix, origin);
        if let Some((name, setting)) = table::forced(&self.config) {
            return self
                .install_transport(name, None)
                .map(drop)
                .map_err(|e| e.context(format!("{setting} is set")));
        }
        let suits =
            PROTOCOLS.iter().find(|row| !row.is_extension() && (!row.needs_nics() || !found.is_empty()));
        // Some row needs no NIC.
        suits.map_or(Ok(()), |row| self.install_transport(row.name(), None).map(drop))
    }
}

fn nics_of(matrix: &Matrix) -> String {
    match matrix.names() {
        nics if nics.is_empty() => "the topology names no NIC".into(),
        nics => format!("NICs {}", nics.join(", ")),
    }
}

#[cfg(test)]
mod tests;
