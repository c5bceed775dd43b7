//! Metrics in one line, in upstream's words.

use crate::engine::tally::{Direction, Tally};

/// The line, without an end.
pub(super) fn line(tally: &Tally) -> String {
    format!("Read: {} | Write: {}", direction(&tally.read), direction(&tally.write))
}

fn direction(counts: &Direction) -> String {
    format!(
        "{} ({} reqs, {} fails, {} timeouts)",
        bytes(counts.bytes),
        counts.requests,
        counts.other_failures(),
        counts.timeouts()
    )
}

/// With two digits behind the point above a kilobyte.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KB", "MB", "GB", "TB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_told_in_fitting_units() {
        for (count, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KB"), (1174405, "1.12 MB"), (1 << 50, "1024.00 TB")]
        {
            assert_eq!(super::bytes(count), text);
        }
    }
}
