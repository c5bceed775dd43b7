//! The NIC priority matrix of an engine: where it comes from, and what is installed with it unasked.

use std::sync::Arc;

use super::transports::is_usable_nic;
use super::Engine;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::topology::{parse_filters, survey, Matrix, Root};

impl Engine {
    /// Looks for NICs again. Without any: an empty matrix. -300 on a system without a NUMA interface.
    pub fn discover_topology(&self) -> Result<()> {
        let matrix = discovered(&self.config)?;
        self.set_topology(matrix, "discovery");
        Ok(())
    }

    /// The matrix in use; empty if there is none.
    pub(super) fn topology(&self) -> Matrix {
        self.topology.lock().as_ref().map(|(matrix, _)| matrix.clone()).unwrap_or_default()
    }

    /// Puts another matrix in use, for installations to come.
    pub(super) fn set_topology(&self, matrix: Matrix, origin: &'static str) {
        *self.topology.lock() = Some((matrix, origin));
    }

    /// The matrix to install RDMA with, and where it comes from: the caller, an earlier call, the file of
    /// `MC_CUSTOM_TOPO_JSON`, or discovery.
    #[cfg_attr(not(feature = "rdma"), allow(dead_code))]
    pub(super) fn topology_for_rdma(&self, given: Option<Matrix>) -> Result<(Matrix, &'static str)> {
        if let Some(matrix) = given {
            return Ok((matrix, "args[0]"));
        }
        let in_use = self.topology.lock().clone();
        in_use.map_or_else(|| found(&self.config), Ok)
    }

    /// Installs what suits this machine: RDMA where there are NICs (or `MC_FORCE_HCA` says so), else TCP. As
    /// upstream, only one of them.
    pub(super) fn install_unasked(self: &Arc<Self>) -> Result<()> {
        if self.config.force_tcp {
            return self.install_transport("tcp", None).map(drop);
        }
        let (matrix, origin) = found(&self.config).unwrap_or_else(|error| {
            tracing::warn!("no topology: {error}");
            (Matrix::default(), "nowhere")
        });
        let found = matrix.names();
        tracing::info!("topology from {origin}: {} NICs {found:?}", found.len());
        let rdma = cfg!(feature = "rdma") && !found.is_empty();
        self.set_topology(matrix, origin);
        match (self.config.force_hca, rdma) {
            (true, _) => self.install_transport("rdma", None).map_err(|e| e.context("MC_FORCE_HCA is set")),
            (false, true) => self.install_transport("rdma", None),
            (false, false) => self.install_transport("tcp", None),
        }
        .map(drop)
    }
}

/// From the file of `MC_CUSTOM_TOPO_JSON`, or from discovery if it is of no use.
fn found(config: &Config) -> Result<(Matrix, &'static str)> {
    if let Some(path) = &config.custom_topo_json {
        match from_file(path) {
            Ok(matrix) => return Ok((matrix, "MC_CUSTOM_TOPO_JSON")),
            Err(why) => tracing::warn!("MC_CUSTOM_TOPO_JSON={path} is not used, but discovery: {why}"),
        }
    }
    Ok((discovered(config)?, "discovery"))
}

fn discovered(config: &Config) -> Result<Matrix> {
    let filters = parse_filters(config.nic_filters.as_deref().unwrap_or_default());
    let usable = |name: &str| is_usable_nic(name, config);
    let found = survey(&Root::default(), &usable, &filters).map_err(|e| e.context("look for NICs"))?;
    found.notes.iter().for_each(|note| tracing::info!("{note}"));
    Ok(found.matrix)
}

fn from_file(path: &str) -> Result<Matrix> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::io(Code::InvalidArgument, "the file cannot be read", &e))?;
    Matrix::parse(&text)
}

#[cfg(test)]
mod tests;
