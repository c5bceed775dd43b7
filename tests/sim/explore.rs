//! Runs schedules and judges them.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use super::shrink::shrink;
use super::{Choices, Sim};

/// Schedules of a simulation where the environment says nothing. Chosen: a moment in a build without optimisation.
const FEW: u64 = 300;
/// Fewer schedules do not have to reach every goal.
const ENOUGH: u64 = 300;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What one schedule has shown: what it reached, or which rule it broke.
fn outcome<S: Sim>(mut choices: Choices, fault: Option<S::Fault>) -> (Choices, Result<(), String>) {
    // What the library logs of a million faults is of no interest.
    let ran = tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::new(), || {
        catch_unwind(AssertUnwindSafe(|| S::run(&mut choices, fault)))
    });
    let said = ran.map_err(|panic| match panic.downcast_ref::<String>() {
        Some(text) => text.clone(),
        None => panic.downcast_ref::<&str>().map_or_else(|| "a panic".into(), |text| text.to_string()),
    });
    (choices, said)
}

/// Explores as many schedules as the environment asks for.
pub(crate) fn explore<S: Sim>() {
    let asked = setting("SIM_SCHEDULES");
    let first = setting("SIM_SEED").unwrap_or(0);
    if asked == Some(1) {
        return tell::<S>(Choices::of_seed(first));
    }
    let schedules = asked.map_or(FEW, |all| (all * S::SHARE / 100).max(FEW));
    let mut reached: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in first..first + schedules {
        let (choices, said) = outcome::<S>(Choices::of_seed(seed), None);
        if let Err(text) = said {
            let list = shortest::<S>(choices.noted, None);
            tell::<S>(Choices::given(list.clone()));
            panic!("{}: seed {seed}: {text}\nas a test: replay::<…>(&{list:?})", S::NAME);
        }
        choices.reached.into_iter().for_each(|(what, times)| *reached.entry(what).or_default() += times);
    }
    println!("{}: {schedules} schedules from seed {first}: {reached:?}", S::NAME);
    if schedules >= ENOUGH {
        let missed: Vec<_> = S::GOALS.iter().filter(|goal| !reached.contains_key(*goal)).collect();
        assert!(missed.is_empty(), "{}: no schedule of {schedules} reached {missed:?}", S::NAME);
    }
    let strange: Vec<_> = reached.keys().filter(|what| !S::GOALS.contains(what)).collect();
    assert!(strange.is_empty(), "{}: not among the goals: {strange:?}", S::NAME);
}

/// Repeats a schedule that once broke a rule.
pub(crate) fn replay<S: Sim>(list: &[u32]) {
    if let (_, Err(text)) = outcome::<S>(Choices::given(list.to_vec()), None) {
        tell::<S>(Choices::given(list.to_vec()));
        panic!("{}: {text}", S::NAME);
    }
}

/// The planted fault breaks a rule within so many schedules: the rules are looked at.
pub(crate) fn finds<S: Sim>(fault: S::Fault, schedules: u64) {
    let broken = (0..schedules).find_map(|seed| {
        let (_, said) = quietly(|| outcome::<S>(Choices::of_seed(seed), Some(fault)));
        said.err().map(|text| (seed, text))
    });
    let (seed, text) = broken.unwrap_or_else(|| panic!("{}: {fault:?} was not noticed", S::NAME));
    println!("{}: {fault:?} is noticed at seed {seed}: {text}", S::NAME);
}

/// Nothing but the seed decides what happens.
pub(crate) fn repeats<S: Sim>(seeds: u64) {
    for seed in 0..seeds {
        let once = || {
            let (choices, said) = outcome::<S>(Choices::of_seed(seed), None);
            (choices.digest, choices.noted, said)
        };
        assert_eq!(once(), once(), "{}: seed {seed} ran in two ways", S::NAME);
    }
}

fn tell<S: Sim>(choices: Choices) {
    let (_, said) = outcome::<S>(choices.aloud(), None);
    eprintln!("{}: {}", S::NAME, said.err().unwrap_or_else(|| "no rule was broken".into()));
}

fn shortest<S: Sim>(list: Vec<u32>, fault: Option<S::Fault>) -> Vec<u32> {
    quietly(|| shrink(list, |list| outcome::<S>(Choices::given(list.to_vec()), fault).1.is_err()))
}

/// Without a line for each panic.
fn quietly<T>(what: impl FnOnce() -> T) -> T {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = what();
    std::panic::set_hook(before);
    result
}
