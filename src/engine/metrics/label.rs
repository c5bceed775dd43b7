//! What an engine is called in metrics. Two engines of a process may have one name, in different stores; two series may not.

use std::sync::Arc;

use crate::engine::Engine;

impl Engine {
    /// Its name in metrics: the segment name, with a number behind it if an engine that was there before has the same one.
    pub fn label(&self) -> &str {
        self.label.get().unwrap_or(&self.local.name)
    }

    /// Takes a label that none of `others` has. It stays the same when they go: a counter must not change its name.
    pub fn distinguish(&self, others: &[Arc<Engine>]) {
        let taken = |label: &str| others.iter().any(|other| other.label() == label);
        let _ = self.label.set(free(&self.local.name, taken));
    }
}

/// `name`, or else `name#2`, `name#3` and so on.
fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..u64::MAX).map(|number| format!("{name}#{number}"));
    std::iter::once(name.to_string()).chain(numbered).find(|label| !taken(label)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn engines_of_one_name_have_labels_of_their_own() {
        let mut taken: Vec<String> = Vec::new();
        for expected in ["a", "a#2", "a#3"] {
            let label = super::free("a", |label| taken.iter().any(|known| known == label));
            assert_eq!(label, expected);
            taken.push(label);
        }
        assert_eq!(super::free("a", |label| label == "a#2" || label == "a#3"), "a", "the first one has gone");
    }
}
