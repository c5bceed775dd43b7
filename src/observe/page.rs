//! A status page that needs nothing but the server it comes from: one text of HTML with its style and script, and the JSON text that the
//! script asks for again and again. Whoever serves it says what there is, as data; both forms are made of the same [`Status`].

mod guard;
mod html;
mod model;
mod words;

pub use guard::{host_name, is_addressed, nonce, protect, NOT_ADDRESSED};
pub use html::html;
pub use model::{Cell, Column, Level, Problem, Status, Table};
pub use words::{ago, amount, for_shell, shown, span};

#[cfg(test)]
mod tests;
