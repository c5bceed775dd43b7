//! The model of libstdc++'s walk order against libstdc++: `tests/c/walk_order.cpp`, built here with g++.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use transfer_engine::topology::order::iteration_order;

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// A location name, or a text of any length, which may be empty and may have bytes above 127.
    fn key(&mut self) -> String {
        const LETTERS: [&str; 10] = ["a", "b", "_", "0", "7", ":", "*", "-", "é", "网"];
        const PREFIXES: [&str; 5] = ["cpu", "cuda", "hip", "musa", "npu"];
        match self.below(3) {
            0 => (0..self.below(40)).map(|_| LETTERS[self.below(10) as usize]).collect(),
            _ => format!("{}:{}", PREFIXES[self.below(5) as usize], self.below(80)),
        }
    }

    /// Up to `limit` keys, ascending as upstream inserts them or in any order.
    fn keys(&mut self, limit: u64) -> Vec<String> {
        let mut keys: Vec<String> = (0..self.below(limit + 1)).map(|_| self.key()).collect();
        if self.below(2) == 0 {
            keys = keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        }
        keys
    }
}

/// A line per set; each key begins with `=`, so that empty ones can be told.
fn line(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("={key} ")).collect::<String>().trim_end().to_string()
}

fn build() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/walk_order.cpp");
    let program = format!("{}/walk_order", env!("CARGO_TARGET_TMPDIR"));
    let mut compiler = Command::new("g++");
    compiler.args(["-std=c++17", "-O1", "-Wall", "-Werror", "-o", &program]).arg(source);
    assert!(compiler.status().expect("g++, see `make deps`").success());
    program
}

#[test]
fn iteration_order_is_that_of_libstdcxx() {
    let mut random = Random(1);
    let mut sets: Vec<Vec<String>> = (0..600).map(|_| random.keys(60)).collect();
    // Up to and beyond every growth of the table that a large host can reach.
    for count in [0u64, 1, 13, 14, 29, 30, 59, 60, 127, 128, 257, 258, 541, 542, 1200, 3000, 6000] {
        sets.push((0..count).map(|number| format!("cuda:{number}")).collect());
    }
    for gpus in 0..17 {
        let cpus = (0..2).map(|number| format!("cpu:{number}"));
        sets.push(cpus.chain((0..gpus).map(|number| format!("cuda:{number}"))).collect());
    }
    let mut child =
        Command::new(build()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("walk_order");
    let mut input = child.stdin.take().unwrap();
    let lines: Vec<String> =
        sets.iter().map(|set| line(&set.iter().map(String::as_str).collect::<Vec<_>>())).collect();
    let writer = std::thread::spawn(move || input.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.lines().count(), sets.len());
    for (set, walk) in sets.iter().zip(output.lines()) {
        let order = iteration_order(set);
        let names: Vec<&str> = order.iter().map(|index| set[*index].as_str()).collect();
        assert_eq!(line(&names), walk.trim_end(), "inserted {set:?}");
    }
}
