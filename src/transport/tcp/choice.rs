//! Which rail the next run of requests goes to: a pure function over what is known of the rails.

/// A rail that works.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// It takes more now.
    pub has_room: bool,
    /// Until the run would be through on it, ns.
    pub run_ns: u64,
    /// Until all that waits would be through on it, ns.
    pub all_ns: u64,
}

/// Position of the rail on which the run is through first, among those that take it now; `None` where it had better wait: on
/// the best rail, which has no room just now, even everything that waits would be through sooner than the run on another.
/// `rails` has `None` for one that does not work.
pub(super) fn next(rails: impl Iterator<Item = Option<View>> + Clone) -> Option<usize> {
    let views = rails.enumerate().filter_map(|(place, view)| Some((place, view?)));
    let best = views.clone().map(|(_, view)| view).min_by_key(|view| view.run_ns)?;
    let worth = |view: &View| view.run_ns <= best.all_ns.max(best.run_ns);
    let taking = views.filter(|(_, view)| view.has_room && worth(view));
    taking.min_by_key(|(_, view)| view.run_ns).map(|(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn rail(has_room: bool, run_ns: u64, all_ns: u64) -> Option<View> {
        Some(View { has_room, run_ns, all_ns })
    }

    #[test]
    fn the_rail_that_is_through_first_is_taken_and_a_slow_one_only_while_much_waits() {
        for (what, rails, expected) in [
            ("none works", &[None, None][..], None),
            ("the first of equals", &[rail(true, 10, 10), rail(true, 10, 10)], Some(0)),
            ("the one with less to do", &[rail(true, 20, 20), rail(true, 10, 10)], Some(1)),
            ("the only one that works", &[None, rail(true, 900, 900)], Some(1)),
            ("the best is full, and much waits", &[rail(false, 10, 1000), rail(true, 900, 90_000)], Some(1)),
            ("the best is full, and little waits", &[rail(false, 10, 800), rail(true, 900, 90_000)], None),
            ("all are full", &[rail(false, 10, 1000), rail(false, 20, 2000)], None),
            (
                "a slow one does not keep the best from its own",
                &[rail(true, 900, 900), rail(true, 10, 20)],
                Some(1),
            ),
        ] {
            assert_eq!(next(rails.iter().copied()), expected, "{what}");
        }
    }
}
