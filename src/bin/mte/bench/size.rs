//! Sizes as command lines have them: `4KiB`, or bytes without a unit.

/// The units, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes, at least 1.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let with_unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, unit) = with_unit.unwrap_or((text, 1));
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| {
        "a size is a number of bytes, or one with KiB, MiB or GiB behind it, as 64KiB".to_string()
    })
}

/// In the largest unit that leaves no rest.
pub(crate) fn show(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_with_their_unit() {
        for (text, bytes) in [("4KiB", 4096), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("1025", 1025)] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert!(show(bytes).starts_with(text), "{text}");
        }
        for text in
            ["", "KiB", "0", "-1", "1.5MiB", "4KB", "4kib", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
