//! What is written for readers agrees with what is there: links lead somewhere, examples compile, and no function, error code,
//! quoted message or figure is missing or made up.

mod examples;
mod links;
mod pages;
mod properties;
mod reference;
