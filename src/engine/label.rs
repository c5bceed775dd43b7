//! What an engine is called in metrics. Two engines of a process may have one name, in different stores; two series may not.

/// `name`, or else `name#2`, `name#3` and so on: the first that is not `taken`.
pub(super) fn distinct(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..u64::MAX).map(|number| format!("{name}#{number}"));
    std::iter::once(name.to_string()).chain(numbered).find(|label| !taken(label)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::distinct;

    #[test]
    fn engines_of_one_name_have_labels_of_their_own() {
        let mut taken: Vec<String> = Vec::new();
        for expected in ["a", "a#2", "a#3"] {
            let label = distinct("a", |label| taken.iter().any(|known| known == label));
            assert_eq!(label, expected);
            taken.push(label);
        }
        assert_eq!(distinct("a", |label| label == "a#2" || label == "a#3"), "a", "the first one has gone");
    }
}
