//! Which rail a slice takes: a pure function over what is known of the rails.

/// A rail that could be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    /// The slice failed on it before.
    pub avoided: bool,
    /// It failed, and has not proved itself since.
    pub failed: bool,
    /// What counts among equals; the least is the best.
    pub cost: u64,
}

/// Avoided, failed, not of the first tier, cost. The least is the best.
type Rank = (bool, bool, bool, u64);

/// Position of the best rail. `rails` are in order of preference, `None` for one that cannot be used; the first
/// `first_tier` are as good as each other. The rest is looked at only if none of these is fit. Rails that are avoided
/// or failed are the last resort; of two that are alike in this, the one in the first tier comes first.
pub(super) fn best(first_tier: usize, mut rails: impl Iterator<Item = Option<View>>) -> Option<usize> {
    let mut best: Option<(Rank, usize)> = None;
    for place in 0.. {
        if place == first_tier && best.is_some_and(|((avoided, failed, _, _), _)| !avoided && !failed) {
            break;
        }
        let Some(rail) = rails.next() else { break };
        let Some(View { avoided, failed, cost }) = rail else { continue };
        let rank = (avoided, failed, place >= first_tier, cost);
        if best.is_none_or(|(known, _)| rank < known) {
            best = Some((rank, place));
        }
    }
    best.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, length of the first tier, rails, the best.
    type Case<'a> = (&'a str, usize, &'a [Option<View>], Option<usize>);

    const FIT: View = View { avoided: false, failed: false, cost: 9 };
    const FAILED: View = View { failed: true, ..FIT };
    const AVOIDED: View = View { avoided: true, ..FIT };
    const CHEAP: View = View { cost: 1, ..FIT };
    const BOTH: View = View { avoided: true, failed: true, cost: 0 };

    #[test]
    fn the_best_rail_is_fit_then_of_the_first_tier_then_cheap() {
        let (f, c, x, a, b) = (Some(FIT), Some(CHEAP), Some(FAILED), Some(AVOIDED), Some(BOTH));
        #[rustfmt::skip]
        let cases: &[Case] = &[
            ("no rail at all", 0, &[], None),
            ("none that can be used", 1, &[None, None], None),
            ("the cheapest of the first tier", 3, &[f, c, f], Some(1)),
            ("the first of equals", 2, &[f, f], Some(0)),
            ("a cheaper one of the rest is not asked", 1, &[f, c], Some(0)),
            ("the rest if the first tier cannot be used", 1, &[None, f, c], Some(2)),
            ("the rest if the first tier failed", 1, &[x, f], Some(1)),
            ("the rest if the first tier is avoided", 1, &[a, f], Some(1)),
            ("failed before avoided", 1, &[a, x], Some(1)),
            ("avoided before both", 2, &[b, a], Some(1)),
            ("of failed ones that of the first tier", 1, &[x, Some(View { cost: 1, ..FAILED })], Some(0)),
            ("a last resort is taken", 1, &[b], Some(0)),
            ("without a first tier all are the rest", 0, &[f, c], Some(1)),
        ];
        for (name, first_tier, rails, expected) in cases {
            assert_eq!(best(*first_tier, rails.iter().copied()), *expected, "{name}");
        }
    }

    #[test]
    fn rails_behind_the_first_tier_are_not_even_looked_at_while_it_is_fit() {
        let mut looked = 0;
        let rails = [FAILED, FIT, FIT, FIT].into_iter().map(|rail| {
            looked += 1;
            Some(rail)
        });
        assert_eq!(best(2, rails), Some(1));
        assert_eq!(looked, 2);
    }
}
