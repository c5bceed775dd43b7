//! The NIC priority matrix of an engine: where it comes from.

use super::Engine;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::topology::{survey, Filter, Matrix, Root};
use crate::transport::table::PROTOCOLS;

impl Engine {
    /// Looks for NICs again. Without any: an empty matrix. -300 on a system without a NUMA interface.
    pub fn discover_topology(&self) -> Result<()> {
        let matrix = discovered(&self.config, &self.devices)?;
        self.set_topology(matrix, "discovery");
        Ok(())
    }

    /// The matrix in use; empty if there is none.
    pub(super) fn topology(&self) -> Matrix {
        self.topology.lock().as_ref().map(|(matrix, _)| matrix.clone()).unwrap_or_default()
    }

    /// The matrix in use as JSON text.
    pub fn topology_text(&self) -> String {
        text_of(&self.topology())
    }

    /// Puts another matrix in use, for installations to come.
    pub(super) fn set_topology(&self, matrix: Matrix, origin: &'static str) {
        *self.topology.lock() = Some((matrix, origin));
    }

    /// The matrix for a transport that is installed without one, and where it comes from: an earlier call, the file of
    /// `MC_CUSTOM_TOPO_JSON`, or discovery.
    pub(super) fn topology_in_use(&self) -> Result<(Matrix, &'static str)> {
        let in_use = self.topology.lock().clone();
        in_use.map_or_else(|| found(&self.config, &self.devices), Ok)
    }

    /// The matrix of this machine, whatever is in use, and where it comes from. Empty, with a warning, if there is
    /// none.
    pub(super) fn found_topology(&self) -> (Matrix, &'static str) {
        found(&self.config, &self.devices).unwrap_or_else(|error| {
            tracing::warn!("no topology: {error}");
            (Matrix::default(), "nowhere")
        })
    }
}

/// From the file of `MC_CUSTOM_TOPO_JSON`, or from discovery if it is of no use.
fn found(config: &Config, devices: &Filter) -> Result<(Matrix, &'static str)> {
    if let Some(path) = &config.custom_topo_json {
        match from_file(path) {
            Ok(matrix) => return Ok((matrix, "MC_CUSTOM_TOPO_JSON")),
            Err(why) => {
                tracing::warn!("MC_CUSTOM_TOPO_JSON={path} is not used and NICs are discovered: {why}")
            }
        }
    }
    Ok((discovered(config, devices)?, "discovery"))
}

/// What discovery finds on this machine for an engine that would be created with `devices`, and with the settings of now, as
/// JSON text.
pub fn survey_machine(devices: &str) -> Result<String> {
    Ok(text_of(&discovered(&Config::from_env().0, &caller_filter(devices))?))
}

/// The matrix that an engine created with `devices` would use with the settings of now, as JSON text, and where it comes from.
pub fn of_machine(devices: &str) -> Result<(String, &'static str)> {
    found(&Config::from_env().0, &caller_filter(devices)).map(|(matrix, origin)| (text_of(&matrix), origin))
}

/// Without rows an empty object; what shows links says null then, as upstream does.
fn text_of(matrix: &Matrix) -> String {
    if matrix.rows().is_empty() {
        return "{}".into();
    }
    matrix.to_value().to_string()
}

/// The NICs that whoever creates an engine wants; all, if the text names none.
pub(super) fn caller_filter(devices: &str) -> Filter {
    Filter::parse("the list of devices that the engine was created with", devices)
}

fn discovered(config: &Config, devices: &Filter) -> Result<Matrix> {
    let filters =
        [Filter::parse("MC_TE_FILTERS", config.nic_filters.as_deref().unwrap_or_default()), devices.clone()];
    let usable = |name: &str| PROTOCOLS.iter().any(|row| row.can_use(name, config));
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
