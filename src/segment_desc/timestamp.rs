//! Time stamps of descriptors, in UTC; for people to read, no peer evaluates them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The current time as `YYYY-MM-DD HH:MM:SS.uuuuuu`.
pub(super) fn now() -> String {
    format(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn format(since_epoch: Duration) -> String {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = date(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since_epoch.subsec_micros();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

/// Year, month and day of the Gregorian calendar, from days since 1970-01-01.
fn date(days_since_epoch: u64) -> (u64, u64, u64) {
    // 400 years of 365 days and 97 leap days, after which the calendar repeats.
    const DAYS_PER_400_YEARS: u64 = 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970 + days_since_epoch / DAYS_PER_400_YEARS * 400;
    let mut days = days_since_epoch % DAYS_PER_400_YEARS;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_match_the_calendar() {
        // `date -u -d @N` of GNU coreutils.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00.000000"),
            (951_782_399, "2000-02-28 23:59:59.000000"),
            (951_782_400, "2000-02-29 00:00:00.000000"),
            (951_868_800, "2000-03-01 00:00:00.000000"),
            (1_735_689_599, "2024-12-31 23:59:59.000000"),
            (1_795_451_601, "2026-11-23 16:33:21.000000"),
            (4_107_542_400, "2100-03-01 00:00:00.000000"),
        ] {
            assert_eq!(format(Duration::from_secs(seconds)), text);
        }
        assert!(format(Duration::from_micros(1_000_042)).ends_with(":01.000042"));
    }
}
