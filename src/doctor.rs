//! What `mte doctor` finds on a machine: each check is a function from what was read to a [`Finding`], and a reader beside it
//! reads. Nothing is changed, but for a key in the store if that is asked for. No engine is made.

mod files;
mod finding;
mod host;
mod limits;
mod network;
mod nics;
mod peer_memory;
mod report;
mod settings;
mod store;
mod survey;

use std::path::PathBuf;

use crate::config::Config;
use files::Files;

pub use finding::{Finding, Level};
pub use report::{json, text};

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The connection string of a store; without it no store is asked.
    pub metadata: Option<String>,
    /// Writes, reads and removes a key of its own in that store.
    pub write: bool,
    /// A folder that stands for `/`: recorded machines, for tests.
    pub root: Option<PathBuf>,
    /// Asks libibverbs although a folder stands for `/`.
    pub drivers: bool,
}

/// Looks at this machine, at the settings in this process's environment, and at the store. Every wait has a limit: ten seconds
/// for the driver, and for the store what its setting says.
pub fn examine(scope: &Scope) -> Vec<Finding> {
    let files = Files::below(scope.root.clone());
    let (config, warnings) = Config::from_env();
    // The drivers of this machine know nothing of a recorded one, unless they are recorded too.
    let nics = survey::read(&files, &config, scope.root.is_none() || scope.drivers);
    let mut findings = nics::findings(&nics, &config);
    findings.extend(peer_memory::findings(&peer_memory::Modules::read(&files), &nics));
    findings.extend(limits::findings(&limits::Limits::read(&files), !nics.nics.is_empty(), &config));
    findings.extend(host::findings(&host::Host::read(&files), &config));
    findings.extend(network::findings(&network::Network::read(&files), &config));
    findings.extend(settings::findings(&settings::Settings::read(warnings), &config));
    findings.extend(store::findings(scope.metadata.as_deref(), scope.write, &config));
    findings
}
