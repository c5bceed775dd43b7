//! Metrics of the process: what tasks, transports and stores did, as Prometheus reads it, as JSON, and in one line.

pub mod endpoint;
mod families;
mod json;
mod pages;
mod summary;
mod text;

use std::sync::Arc;

use super::{tally, Engine};

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
    let tally = tally::so_far(|each| engines.iter().for_each(|engine| engine.each_batch(&mut *each)));
    match form {
        Form::Summary => summary::line(&tally),
        Form::Text => text::render(&families::of(&tally, engines)),
        Form::Json => json::render(&families::of(&tally, engines)),
    }
}

#[cfg(test)]
mod tests;
