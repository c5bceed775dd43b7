//! The report as text and as JSON.

use std::fmt::Write;

use serde_json::{json, Value};

use super::finding::{Finding, Level};

/// Lines in columns, what to do below what was seen, and at the end a line of counts. `coloured`: the level is.
pub fn text(findings: &[Finding], coloured: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.chars().count()).max().unwrap_or(0);
    let level_width = Level::Warning.word().len();
    let mut out = String::new();
    for finding in findings {
        let level = format!("{:<level_width$}", finding.level.word());
        let level =
            if coloured { format!("\u{1b}[{}m{level}\u{1b}[0m", colour(finding.level)) } else { level };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{level} {:<width$} {}", finding.check, finding.seen);
        if !finding.remedy.is_empty() {
            let _ = writeln!(out, "{:level_width$} {:width$} to do: {}", "", "", finding.remedy);
        }
    }
    let number = |level: Level| match count(findings, level) {
        1 => format!("1 {}", level.word()),
        several => format!("{several} {}s", level.word()),
    };
    let _ = writeln!(out, "{} checks: {}, {}", findings.len(), number(Level::Fault), number(Level::Warning));
    out
}

/// `{"findings":[{"check","level","seen","remedy"}],"faults":N,"warnings":N}`.
pub fn json(findings: &[Finding]) -> String {
    let entry = |finding: &Finding| {
        json!({
            "check": finding.check,
            "level": finding.level.word(),
            "seen": finding.seen,
            "remedy": finding.remedy,
        })
    };
    let entries: Vec<Value> = findings.iter().map(entry).collect();
    let (faults, warnings) = (count(findings, Level::Fault), count(findings, Level::Warning));
    json!({"findings": entries, "faults": faults, "warnings": warnings}).to_string()
}

fn count(findings: &[Finding], level: Level) -> usize {
    findings.iter().filter(|finding| finding.level == level).count()
}

/// The terminal's number (ECMA-48): green, yellow, red.
fn colour(level: Level) -> u8 {
    match level {
        Level::Ok => 32,
        Level::Warning => 33,
        Level::Fault => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> Vec<Finding> {
        vec![Finding::ok("one", "1"), Finding::warning("three", "3", "do"), Finding::fault("x", "4", "go")]
    }

    #[test]
    fn columns_are_aligned_and_counts_come_last() {
        let expected = r"
ok      one   1
warning three 3
              to do: do
fault   x     4
              to do: go
3 checks: 1 fault, 1 warning
";
        assert_eq!(text(&findings(), false), expected.trim_start());
        assert!(text(&findings(), true).contains("\u{1b}[31mfault"));
    }

    #[test]
    fn json_counts_what_it_lists() {
        let value: Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!((value["faults"].as_u64(), value["warnings"].as_u64()), (Some(1), Some(1)));
        assert_eq!(value["findings"][1], json!({"check":"three","level":"warning","seen":"3","remedy":"do"}));
    }
}
