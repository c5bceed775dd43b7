//! `mte completions` and `mte manpages`: what shells and `man` know of the command line, from its one definition.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::answer::print;

/// For which shell.
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

/// Where to.
#[derive(clap::Args)]
pub(crate) struct Manpages {
    /// Is made if it is not there
    folder: PathBuf,
}

/// Prints the script that a shell reads.
pub(crate) fn completions(arguments: Completions) -> std::io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut crate::Arguments::command(), "mte", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes `mte.1`, and `mte-COMMAND.1` for each command.
pub(crate) fn manpages(arguments: Manpages) -> std::io::Result<()> {
    let folder = arguments.folder;
    let told = |error: std::io::Error| {
        let text = format!("cannot write man pages to {}: {error}", folder.display());
        std::io::Error::new(error.kind(), text)
    };
    std::fs::create_dir_all(&folder).map_err(told)?;
    clap_mangen::generate_to(crate::Arguments::command(), &folder).map_err(told)
}
