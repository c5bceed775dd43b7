//! What settings are, where they are no numbers and texts.

/// A threshold for the library's log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// Life-cycle events and worse.
    Info,
    /// Fall-backs, ignored settings and worse.
    Warning,
    /// Failures only.
    Error,
}

/// A file that a setting names, with what it held when the engine was created. `Debug` shows the path only.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// What the setting says.
    pub path: String,
    /// `None`: nobody has read it.
    pub text: Option<Vec<u8>>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.fmt(f)
    }
}

/// A password: not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
