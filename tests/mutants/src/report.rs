//! The record as a table, one row per part of the library.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{equivalents, Record, Verdict};
use crate::run::mutants;
use crate::tree::Paths;

#[derive(Default)]
struct Row {
    viable: usize,
    by_verdict: BTreeMap<&'static str, usize>,
    equivalent: usize,
}

/// `transport/tcp` of `src/transport/tcp/lane.rs`, `metadata` of `src/metadata/etcd/watch.rs`.
fn part(identity: &str) -> String {
    let path = identity.split(' ').next().unwrap_or_default().trim_start_matches("src/");
    let mut names: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    names.truncate(if names[0] == "transport" && names.len() > 2 { 2 } else { 1 });
    names.join("/")
}

/// Above the table.
const HEAD: &str = "# Do the tests notice?

`make mutants` writes this table of `record.txt`. The words stand in ARCHITECTURE.md. What was neither tried nor found out of reach is not known. An
open one has no answer yet: the first share is of those that have one, the second counts each open one as if it had survived.

";

/// Prints the table and writes it beside the record.
pub fn write(paths: &Paths) -> Result<(), String> {
    let (table, gone) = table(paths)?;
    println!("{table}");
    gone.iter().for_each(|identity| println!("equivalent.txt names no mutant any more: {identity}"));
    std::fs::write(&paths.table, format!("{HEAD}{table}"))
        .map_err(|e| format!("{}: {e}", paths.table.display()))
}

/// The table, and what `equivalent.txt` names in vain.
fn table(paths: &Paths) -> Result<(String, Vec<String>), String> {
    let record = Record::read(&paths.record);
    let equivalent = equivalents(&paths.equivalent);
    let mut rows = BTreeMap::<String, Row>::new();
    let mutants = mutants(paths)?;
    for mutant in &mutants {
        for name in [part(&mutant.identity), "~all".to_string()] {
            let row = rows.entry(name).or_default();
            row.viable += 1;
            if equivalent.contains_key(&mutant.identity) {
                row.equivalent += 1;
            } else if let Some(verdict) = record.verdicts.get(&mutant.identity) {
                *row.by_verdict.entry(verdict.word()).or_default() += 1;
            }
        }
    }
    let mut out = "| part | mutants | tried | caught | survived | open | not reached | equivalent | caught of decided | of tried |\n".to_string();
    out += "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n";
    for (name, row) in &rows {
        let of = |verdict: Verdict| row.by_verdict.get(verdict.word()).copied().unwrap_or_default();
        let [caught, survived, open] = [Verdict::Caught, Verdict::Survived, Verdict::Open].map(of);
        let tried = caught + survived + open;
        let share = |all: usize| {
            (caught * 100).checked_div(all).map_or("–".to_string(), |rate| format!("{rate} %"))
        };
        let (of_decided, of_tried) = (share(caught + survived), share(tried));
        let unreached = of(Verdict::Unreached);
        let name = name.trim_start_matches('~');
        out += &format!(
            "| {name} | {} | {tried} | {caught} | {survived} | {open} | {unreached} | {} | {of_decided} | {of_tried} |\n",
            row.viable, row.equivalent
        );
    }
    let known: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.identity).collect();
    let gone = equivalent.keys().filter(|identity| !known.contains(identity)).cloned().collect();
    Ok((out, gone))
}
