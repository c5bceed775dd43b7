//! Names in the environment that look like settings and are none: most likely misspelt.

use super::unused::UNUSED;

/// What the names of all settings begin with.
const PREFIX: &str = "MC_";
/// Variables of other programs of the field, which may well stand in the same environment.
const OF_OTHERS: &[&str] = &["MC_STORE_", "MC_TRANSFER_TIMEOUT"];
/// Most letters that may be wrong in a name that is taken for another one. Chosen: a letter too many, one too few and two that
/// changed places.
const MOST_SLIPS: usize = 3;

/// A variable that no setting has the name of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// As it stands in the environment.
    pub name: String,
    /// The setting that was meant, if one is spelt nearly so.
    pub meant: Option<&'static str>,
}

/// Those of `names` that look like settings and are none, sorted. `settings` are the names that there are, `old_names` those
/// that they had.
pub(super) fn strangers(
    names: impl Iterator<Item = String>,
    settings: &[&'static str],
    old_names: &[&str],
) -> Vec<Stranger> {
    let is_known = |name: &str| {
        settings.contains(&name)
            || old_names.contains(&name)
            || UNUSED.iter().any(|(unused, _)| *unused == name)
            || OF_OTHERS.iter().any(|other| name.starts_with(other))
    };
    // A name in small letters is misspelt, too.
    let looks_so =
        |name: &str| name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    let mut names: Vec<String> = names.filter(|name| looks_so(name) && !is_known(name)).collect();
    names.sort();
    names.into_iter().map(|name| Stranger { meant: nearest(&name, settings), name }).collect()
}

/// The setting whose name differs least, if it differs by few letters.
fn nearest(name: &str, settings: &[&'static str]) -> Option<&'static str> {
    let name = name.to_ascii_uppercase();
    let distances = settings.iter().map(|setting| (distance(&name, setting), *setting));
    distances.min().filter(|(slips, _)| *slips <= MOST_SLIPS).map(|(_, setting)| setting)
}

/// Letters to add, to take away or to change until one text is the other (Levenshtein's distance).
fn distance(one: &str, other: &str) -> usize {
    let other = other.as_bytes();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[&str] = &["MC_GID_INDEX", "MC_TCP_THREADS", "MC_IB_PORT"];

    #[test]
    fn a_misspelt_name_is_told_with_the_one_that_was_meant() {
        for (name, meant) in [
            ("MC_GID_INDX", Some("MC_GID_INDEX")),
            ("MC_TCP_THREDS", Some("MC_TCP_THREADS")),
            ("mc_ib_port", Some("MC_IB_PORT")),
            ("MC_SOMETHING_ELSE_ENTIRELY", None),
        ] {
            let found = strangers([name.to_string()].into_iter(), SETTINGS, &[]);
            assert_eq!(found, [Stranger { name: name.into(), meant }]);
        }
    }

    #[test]
    fn names_that_mean_something_are_no_strangers() {
        let names =
            ["MC_GID_INDEX", "MC_USE_TENT", "MC_OLD", "MC_STORE_MEMCPY", "MC_TRANSFER_TIMEOUT", "PATH", "M"];
        assert_eq!(strangers(names.map(String::from).into_iter(), SETTINGS, &["MC_OLD"]), []);
    }

    #[test]
    fn distances_count_letters() {
        for (one, other, expected) in [("", "ab", 2), ("ab", "ab", 0), ("ab", "ba", 2), ("abc", "xbcd", 2)] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
