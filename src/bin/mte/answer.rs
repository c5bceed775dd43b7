//! How commands answer, and how they read times.

use std::io::{ErrorKind, Write};
use std::time::Duration;

/// Prints an answer. A reader that has seen enough and closes the pipe is no failure.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let printed = out.write_all(text.trim_end().as_bytes()).and_then(|()| out.write_all(b"\n"));
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Columns as wide as their longest entry, two blanks apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let entries = rows.iter().filter_map(|row| row.get(column));
        entries.map(|entry| entry.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let entries = row.iter().zip(&widths).map(|(entry, width)| format!("{entry:width$}"));
        entries.collect::<Vec<_>>().join("\u{20}\u{20}").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A time as a command line has it: `2s`, `500ms`, or seconds without a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * unit).ok());
    seconds.ok_or_else(|| "a time is a number with s or ms behind it, as 2s or 500ms".to_string())
}

/// As [`duration`], and not 0.
pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    let limit = duration(text)?;
    (!limit.is_zero()).then_some(limit).ok_or_else(|| "nothing can answer within no time".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, millis) in [("2s", 2000), ("500ms", 500), ("1.5", 1500), ("0", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1m", "nan", "inf", "1e300"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(limit("0ms").is_err());
    }
}
