//! Tries mutants: the tests that reach one are run with it on, until one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{Duration, Instant};

use crate::cover::{self, Test};
use crate::exec::{End, Place};
use crate::record::{equivalents, Record, Verdict};
use crate::tree::Paths;

/// What to try.
pub struct Wanted {
    /// Beginning of the identity, such as `src/metadata`.
    pub only: Vec<String>,
    /// Mutants with these verdicts are tried again.
    pub again: Vec<Verdict>,
    pub seed: u64,
    /// Time for all.
    pub time: Duration,
    /// Time for one.
    pub budget: Duration,
}

/// A test's limit: a machine that others use too may be five times as slow.
fn limit(took: Duration) -> Duration {
    took * 5 + Duration::from_secs(5)
}

/// Tests that run in one process: quick ones, because starting it takes longer than they do.
const TOGETHER: usize = 24;
/// In the first one, which mostly has a test that fails.
const FIRST: usize = 4;
const TOGETHER_FOR: Duration = Duration::from_millis(600);

/// A mutant of the tree.
pub struct Mutant {
    pub number: u32,
    pub identity: String,
    pub line: String,
}

/// The mutants of the tree, as `instrument` wrote them.
pub fn mutants(paths: &Paths) -> Result<Vec<Mutant>, String> {
    let text =
        std::fs::read_to_string(&paths.sites).map_err(|e| format!("{}: {e}", paths.sites.display()))?;
    let mutants = text.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let number = fields.next()?.parse().ok()?;
        Some(Mutant { number, identity: fields.next()?.to_string(), line: fields.next()?.to_string() })
    });
    Ok(mutants.collect())
}

pub fn run(paths: &Paths, wanted: &Wanted) -> Result<(), String> {
    let start = Instant::now();
    let mut mutants = mutants(paths)?;
    let mut tests = cover::tests(paths)?;
    let equivalent = equivalents(&paths.equivalent);
    let mut record = Record::read(&paths.record);
    mutants.retain(|mutant| {
        wanted.only.is_empty() || wanted.only.iter().any(|only| mutant.identity.starts_with(only))
    });
    shuffle(&mut mutants, wanted.seed);
    // What no test reaches is known without trying.
    mutants.retain(|mutant| {
        let is_reached = tests.iter().any(|test| test.reaches.contains(&mutant.number));
        if !is_reached {
            record.verdicts.insert(mutant.identity.clone(), Verdict::Unreached);
        } else if record.verdicts.get(&mutant.identity) == Some(&Verdict::Unreached) {
            record.verdicts.remove(&mutant.identity);
        }
        is_reached
    });
    record.write()?;
    let done = |verdict: &Verdict| !wanted.again.contains(verdict);
    mutants.retain(|mutant| {
        !record.verdicts.get(&mutant.identity).is_some_and(done) && !equivalent.contains_key(&mutant.identity)
    });
    let mut log =
        std::fs::File::options().create(true).append(true).open(&paths.log).map_err(|e| e.to_string())?;
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut sound = BTreeSet::new();
    for mutant in &mutants {
        if start.elapsed() > wanted.time {
            break;
        }
        let begun = Instant::now();
        let (verdict, by) = try_one(paths, mutant, &mut tests, &mut sound, wanted.budget)?;
        record.verdicts.insert(mutant.identity.clone(), verdict);
        record.write()?;
        *counts.entry(verdict.word()).or_default() += 1;
        let took = begun.elapsed().as_secs_f32();
        let line =
            format!("{:9} {took:5.1} s  {} (line {}) {by}\n", verdict.word(), mutant.identity, mutant.line);
        log.write_all(line.as_bytes()).map_err(|e| e.to_string())?;
        if [Verdict::Survived, Verdict::Open].contains(&verdict) {
            print!("{line}");
        }
    }
    let tried: usize = counts.values().sum();
    println!("{tried} of {} mutants in {} s: {counts:?}", mutants.len(), start.elapsed().as_secs());
    Ok(())
}

/// Runs the tests that reach a mutant; says which caught it. `sound` are the tests that were seen to pass without one, after
/// they had failed.
fn try_one(
    paths: &Paths,
    mutant: &Mutant,
    tests: &mut Vec<Test>,
    sound: &mut BTreeSet<String>,
    budget: Duration,
) -> Result<(Verdict, String), String> {
    let place = Place { tree: &paths.tree, build: &paths.build };
    let number = mutant.number.to_string();
    let start = Instant::now();
    let mut broken = Vec::new();
    let mut verdict = (Verdict::Survived, String::new());
    for group in groups(tests, mutant) {
        let took: Duration = group.iter().map(|test| test.took).sum();
        let program = group[0].program.as_str();
        let names: Vec<&str> = group.iter().map(|test| test.name.as_str()).collect();
        let run = |number: &str| place.run(program, &names, ("MTE_MUTANT", number), limit(took));
        if start.elapsed() + took > budget {
            verdict.0 = Verdict::Open;
            break;
        }
        let (end, _) = run(&number)?;
        if end == End::Passed {
            continue;
        }
        // A test that fails now and then says nothing of the mutant.
        if end == End::Failed && run(&number)?.0 == End::Passed {
            continue;
        }
        let is_known = end == End::Failed && names.iter().all(|name| sound.contains(*name));
        if !is_known && run("0")?.0 != End::Passed {
            broken.extend(names.iter().map(|name| (program.to_string(), (*name).to_string())));
            continue;
        }
        sound.extend(names.iter().map(|name| (*name).to_string()));
        verdict = (Verdict::Caught, format!("by {end:?} {}", names.join(" ")));
        break;
    }
    for (program, name) in &broken {
        println!("not used any more, because it fails by itself: {name}");
        tests.retain(|test| test.program != *program || test.name != *name);
    }
    Ok(verdict)
}

/// The tests that reach a mutant: first those that are quick, stand near it and reach little else.
fn groups<'a>(tests: &'a [Test], mutant: &Mutant) -> Vec<Vec<&'a Test>> {
    let path = mutant.identity.split(' ').next().unwrap_or_default();
    let module: Vec<&str> =
        path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
    let mut reaching: Vec<(u64, &Test)> = tests
        .iter()
        .filter(|test| test.reaches.contains(&mutant.number))
        .map(|test| {
            let near = test.name.split("::").zip(&module).take_while(|(one, other)| one == *other).count();
            let cost = (test.took.as_millis() as u64 + 5) * (test.reaches.len() as u64).isqrt().max(1);
            (cost >> (2 * near), test)
        })
        .collect();
    reaching.sort_by_key(|(cost, _)| *cost);
    let mut groups: Vec<Vec<&Test>> = Vec::new();
    for (_, test) in reaching {
        let most = if groups.len() < 2 { FIRST } else { TOGETHER };
        let fits = |group: &Vec<&Test>| {
            group[0].program == test.program
                && group.len() < most
                && group.iter().map(|test| test.took).sum::<Duration>() + test.took < TOGETHER_FOR
        };
        match groups.last_mut().filter(|group| fits(group)) {
            Some(group) => group.push(test),
            None => groups.push(vec![test]),
        }
    }
    groups
}

/// The same order for the same seed (splitmix64).
fn shuffle(mutants: &mut [Mutant], seed: u64) {
    let mut state = seed;
    for last in (1..mutants.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mutants.swap(last, ((mixed ^ (mixed >> 31)) % (last as u64 + 1)) as usize);
    }
}
