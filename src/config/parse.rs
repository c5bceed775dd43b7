//! How the texts of environment variables are read. An error is the sentence that the warning gives.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::types::{LogLevel, Pem, Secret};

pub(super) type Parsed<T> = std::result::Result<T, String>;

pub(super) fn int<T: FromStr + PartialOrd + Display + 'static>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Parsed<T> {
    move |text| match text.trim().parse::<T>() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!("not a whole number from {} to {}", range.start(), range.end())),
    }
}

pub(super) fn secs(range: RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| int(range.clone())(text).map(Duration::from_secs)
}

/// Set at all, even to the empty text.
pub(super) fn present(_: &str) -> Parsed<bool> {
    Ok(true)
}

/// On unless it is `0`, `false` or `no` in any case.
pub(super) fn on_off(text: &str) -> Parsed<bool> {
    Ok(!["0", "false", "no"].contains(&text.to_ascii_lowercase().as_str()))
}

pub(super) fn text(text: &str) -> Parsed<Option<String>> {
    Ok((!text.is_empty()).then(|| text.to_string()))
}

/// A file, unread. The empty text names one too, which nobody can read: it is no wish to go without.
pub(super) fn pem(text: &str) -> Parsed<Option<Pem>> {
    Ok(Some(Pem { path: text.to_string(), text: None }))
}

pub(super) fn millis(range: RangeInclusive<u64>) -> impl Fn(&str) -> Parsed<Duration> {
    move |text| int(range.clone())(text).map(Duration::from_millis)
}

/// -1 leaves the choice to the library.
pub(super) fn minus_one<T>(parse: impl Fn(&str) -> Parsed<T>) -> impl Fn(&str) -> Parsed<Option<T>> {
    move |text| if text.trim() == "-1" { Ok(None) } else { parse(text).map(Some) }
}

pub(super) fn one_of<T: Copy>(text: &str, known: &[(&str, T)]) -> Parsed<T> {
    let found = known.iter().find(|(word, _)| *word == text.trim()).map(|(_, value)| *value);
    let words = || known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("not one of {}", words()))
}

/// Upstream writes -1 for "off".
pub(super) fn slice_timeout(text: &str) -> Parsed<Option<Duration>> {
    match text.trim() {
        "-1" => Ok(None),
        text => secs(1..=65535)(text).map(Some),
    }
}

pub(super) fn log_level(text: &str) -> Parsed<LogLevel> {
    match text {
        "TRACE" => Ok(LogLevel::Trace),
        "INFO" => Ok(LogLevel::Info),
        "WARNING" => Ok(LogLevel::Warning),
        "ERROR" => Ok(LogLevel::Error),
        _ => Err("not TRACE, INFO, WARNING or ERROR".into()),
    }
}

/// A text that no log shows.
pub(super) fn secret(text: &str) -> Parsed<Option<Secret>> {
    Ok((!text.is_empty()).then(|| Secret(text.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_their_names() {
        let levels = [LogLevel::Trace, LogLevel::Info, LogLevel::Warning, LogLevel::Error];
        for (name, level) in ["TRACE", "INFO", "WARNING", "ERROR"].into_iter().zip(levels) {
            assert_eq!(log_level(name), Ok(level));
        }
        assert!(["info", "", "DEBUG"].iter().all(|name| log_level(name).is_err()));
    }

    #[test]
    fn a_time_for_slices_may_be_none() {
        assert_eq!(slice_timeout(" -1 "), Ok(None));
        assert_eq!(slice_timeout("3"), Ok(Some(Duration::from_secs(3))));
        assert!(slice_timeout("0").is_err() && slice_timeout("65536").is_err());
    }
}
