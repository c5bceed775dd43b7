//! Makes a schedule shorter and duller for as long as it still breaks a rule.

/// Most runs that are spent on it. Chosen: seconds.
const RUNS: usize = 20_000;

/// The shortest and dullest list that was found for which `fails` still says so.
pub(super) fn shrink(list: Vec<u32>, mut fails: impl FnMut(&[u32]) -> bool) -> Vec<u32> {
    let mut best = list;
    let mut left = RUNS;
    let mut try_it = |best: &mut Vec<u32>, candidate: Vec<u32>| {
        let better = left > 0 && {
            left -= 1;
            fails(&candidate)
        };
        if better {
            *best = candidate;
        }
        better
    };
    loop {
        let before = best.clone();
        let mut size = best.len().next_power_of_two();
        while size > 0 {
            let mut at = 0;
            while at < best.len() {
                let end = (at + size).min(best.len());
                let without = [&best[..at], &best[end..]].concat();
                let mut dull = best.clone();
                dull[at..end].fill(0);
                let was_dull = dull == best;
                if !try_it(&mut best, without) && (was_dull || !try_it(&mut best, dull)) {
                    at = end;
                }
            }
            size /= 2;
        }
        for at in 0..best.len() {
            while let Some(half) = best.get(at).filter(|number| **number > 1).map(|number| number / 2) {
                let mut smaller = best.clone();
                smaller[at] = half;
                if !try_it(&mut best, smaller) {
                    break;
                }
            }
        }
        if best == before {
            return best;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let list: Vec<u32> = (0..300).collect();
        let shrunk = shrink(list, |list| list.iter().any(|n| *n >= 100) && list.contains(&7));
        assert!(shrunk.len() == 2 && shrunk[0] == 7 && (100..200).contains(&shrunk[1]), "{shrunk:?}");
    }
}
