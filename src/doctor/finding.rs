//! What one check has found.

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be, or of no matter.
    Ok,
    /// Works, but slower, not for all, or not under load.
    Warning,
    /// Something that was asked for does not work.
    Fault,
}

impl Level {
    /// The word for reports.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Fault => "fault",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub seen: String,
    /// What to do, one sentence; empty if it is ok.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub(super) fn ok(check: impl Into<String>, seen: impl Into<String>) -> Self {
        Finding { check: check.into(), level: Level::Ok, seen: seen.into(), remedy: String::new() }
    }

    /// A warning.
    pub(super) fn warning(
        check: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding { check: check.into(), level: Level::Warning, seen: seen.into(), remedy: remedy.into() }
    }

    /// A fault.
    pub(super) fn fault(
        check: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding { check: check.into(), level: Level::Fault, seen: seen.into(), remedy: remedy.into() }
    }
}
