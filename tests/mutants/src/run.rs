//! Tries mutants: the tests that reach one are run with it on, until one fails.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::cover::{self, Test};
use crate::exec::{at_once, locked, End, Place};
use crate::record::{equivalents, Record, Verdict};
use crate::tree::Paths;

/// What to try.
pub struct Wanted {
    /// Beginning of the identity, such as `src/metadata`.
    pub only: Vec<String>,
    /// Mutants with these verdicts are tried again.
    pub again: Vec<Verdict>,
    /// And those that have none yet.
    pub new: bool,
    pub seed: u64,
    /// Time for all.
    pub time: Duration,
    /// Time for one.
    pub budget: Duration,
    /// How many are tried at the same time.
    pub jobs: usize,
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
    let tests = cover::tests(paths)?;
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
    mutants.retain(|mutant| {
        let verdict = record.verdicts.get(&mutant.identity);
        let is_wanted = verdict.map_or(wanted.new, |verdict| wanted.again.contains(verdict));
        is_wanted && !equivalent.contains_key(&mutant.identity)
    });
    let log = std::fs::File::options().create(true).append(true).open(&paths.log);
    let log = Mutex::new(log.map_err(|e| e.to_string())?);
    let (tried, all) = (Mutex::new((record, BTreeMap::<&str, usize>::new())), mutants.len());
    let queue = Mutex::new(mutants.iter());
    let place = Place { tree: &paths.tree, build: &paths.build };
    let (sound, broken) = Default::default();
    let trials = Trials { place, tests: &tests, budget: wanted.budget, sound, broken };
    let work = |_| -> Result<(), String> {
        while start.elapsed() < wanted.time {
            let Some(mutant) = locked(&queue).next() else { break };
            let begun = Instant::now();
            let (verdict, by) = trials.try_one(mutant)?;
            let took = begun.elapsed().as_secs_f32();
            let line = format!(
                "{:9} {took:5.1} s  {} (line {}) {by}\n",
                verdict.word(),
                mutant.identity,
                mutant.line
            );
            locked(&log).write_all(line.as_bytes()).map_err(|e| e.to_string())?;
            if [Verdict::Survived, Verdict::Open].contains(&verdict) {
                print!("{line}");
            }
            let (record, counts) = &mut *locked(&tried);
            *counts.entry(verdict.word()).or_default() += 1;
            record.verdicts.insert(mutant.identity.clone(), verdict);
            record.write()?;
        }
        Ok(())
    };
    at_once(wanted.jobs, work)?;
    let counts = &locked(&tried).1;
    let number: usize = counts.values().sum();
    println!("{number} of {all} mutants in {} s: {counts:?}", start.elapsed().as_secs());
    Ok(())
}

fn key(test: &Test) -> (String, String) {
    (test.program.clone(), test.name.clone())
}

/// What the workers share.
struct Trials<'a> {
    place: Place<'a>,
    tests: &'a [Test],
    budget: Duration,
    /// Programs and names of tests that were seen to pass without a mutant, after they had failed.
    sound: Mutex<BTreeSet<(String, String)>>,
    /// Those that fail by themselves.
    broken: Mutex<BTreeSet<(String, String)>>,
}

impl Trials<'_> {
    /// Runs the tests that reach a mutant; says which caught it.
    fn try_one(&self, mutant: &Mutant) -> Result<(Verdict, String), String> {
        let number = mutant.number.to_string();
        let start = Instant::now();
        let mut left: VecDeque<Vec<&Test>> = groups(self.tests, mutant).into();
        while let Some(mut group) = left.pop_front() {
            group.retain(|test| !locked(&self.broken).contains(&key(test)));
            if group.is_empty() {
                continue;
            }
            let took: Duration = group.iter().map(|test| test.took).sum();
            let program = group[0].program.as_str();
            let names: Vec<&str> = group.iter().map(|test| test.name.as_str()).collect();
            let keys: Vec<_> = group.iter().map(|test| key(test)).collect();
            if start.elapsed() + took > self.budget {
                return Ok((Verdict::Open, format!("before {program} {}", names.join(" "))));
            }
            let run = |number: &str| self.place.run(program, &names, ("MTE_MUTANT", number), limit(took));
            let (end, _) = run(&number)?;
            if end == End::Passed {
                continue;
            }
            // A test that fails now and then says nothing of the mutant.
            if end == End::Failed && run(&number)?.0 == End::Passed {
                continue;
            }
            let is_known = end == End::Failed && keys.iter().all(|key| locked(&self.sound).contains(key));
            if !is_known && run("0")?.0 != End::Passed {
                match group.as_slice() {
                    [_] if run("0")?.0 == End::Passed => {}
                    [only] => {
                        println!("not used any more, because it fails by itself: {}", only.name);
                        locked(&self.broken).extend(keys);
                    }
                    // One of them does.
                    _ => group.iter().rev().for_each(|test| left.push_front(vec![test])),
                }
                continue;
            }
            locked(&self.sound).extend(keys);
            return Ok((Verdict::Caught, format!("by {end:?} {}", names.join(" "))));
        }
        Ok((Verdict::Survived, String::new()))
    }
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
