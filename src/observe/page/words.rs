//! Texts of a status page: what comes from elsewhere made fit to be looked at, and numbers in fitting units.

use std::fmt::Write;
use std::time::Duration;

/// Longest text of a peer or a store that is shown, in characters. Chosen: a name of that length fills a phone's screen.
const LONGEST: usize = 200;

/// `text` without what could make it look like another one: characters that cannot be seen or change the direction of writing stand
/// there as escapes, and a long text is cut. It is not yet escaped for HTML.
pub fn shown(text: &str) -> String {
    let mut out = String::new();
    for (at, c) in text.chars().enumerate() {
        if at == LONGEST {
            out.push('…');
            break;
        }
        // Zero-width characters, marks and overrides of direction, the byte order mark, line and paragraph separators.
        let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}' | '\u{61c}');
        match c.is_control() || is_hidden {
            // Writing to a String cannot fail.
            true => drop(write!(out, "\\u{{{:x}}}", c as u32)),
            false => out.push(c),
        }
    }
    out
}

/// `name` if it can stand in a shell's command line as it is, else `NAME`: commands of the page are copied, and a name may be chosen
/// by a stranger.
pub fn for_shell(name: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:/@%+".contains(c);
    let fits =
        !name.is_empty() && name.len() <= LONGEST && !name.starts_with('-') && name.chars().all(is_plain);
    if fits {
        name
    } else {
        "NAME"
    }
}

/// A number of bytes, in powers of 1024.
pub fn amount(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time in its largest unit, rounded down.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..120 => format!("{secs} s"),
        secs @ 120..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} d", secs / 86400),
    }
}

/// How long ago something was.
pub fn ago(time: Duration) -> String {
    format!("{} ago", span(time))
}
