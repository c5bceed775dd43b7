//! Metrics of the process: what tasks, transports and stores did, as Prometheus reads it, as JSON, and in one line.

pub mod endpoint;
mod families;
mod history;
mod json;
mod pages;
mod problems;
mod status;
mod summary;
mod text;

use std::sync::Arc;

pub use history::tells_of_trouble;

use super::tally::{self, Tally};
use super::Engine;

/// Shows the engines of this process.
pub type Look = fn(&mut dyn FnMut(&[Arc<Engine>]));

/// In what form metrics are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// What Prometheus reads, version 0.0.4.
    Text,
    /// An object with a member for each series.
    Json,
    /// One line for people.
    Summary,
}

/// Everything that is known, in this form, of the process and these engines in it.
pub fn gather(engines: &[Arc<Engine>], form: Form) -> String {
    let tally = ended(engines);
    match form {
        Form::Summary => summary::line(&tally),
        Form::Text => text::render(&families::of(&tally, engines)),
        Form::Json => json::render(&families::of(&tally, engines)),
    }
}

/// The tasks of the process that have ended, those of these engines' batches included.
fn ended(engines: &[Arc<Engine>]) -> Tally {
    tally::so_far(|each| engines.iter().for_each(|engine| engine.each_batch(&mut *each)))
}

#[cfg(test)]
mod tests;
