//! The fuzz targets of `fuzz/` on their corpus, and on inputs made of it, the same in every run. `make fuzz` looks for more.

#![allow(unsafe_code)]

mod common;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use targets::TARGETS;

/// Longest input that is made. As that of `make fuzz`.
const MOST_BYTES: usize = 4096;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The files of a folder by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Random numbers, the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// `input` with one to four changes of the kinds that libFuzzer makes, and with pieces of `other`.
fn mutated(input: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        let end = at + random.below((bytes.len() - at).min(64) + 1);
        match random.below(8) {
            0 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => bytes[at..end].iter_mut().take(1).for_each(|byte| *byte = random.next() as u8),
            2 => bytes[at..end].fill([0, 0x7f, 0x80, 0xff][random.below(4)]),
            3 => drop(bytes.drain(at..end)),
            4 => bytes.insert(at, random.next() as u8),
            5 => {
                let piece = bytes[at..end].to_vec();
                let place = random.below(bytes.len() + 1);
                bytes.splice(place..place, piece);
            }
            6 => {
                let from = random.below(other.len() + 1);
                let len = random.below((other.len() - from).min(64) + 1);
                bytes.splice(at..end, other[from..from + len].iter().copied());
            }
            _ => bytes.truncate(end),
        }
    }
    bytes.truncate(MOST_BYTES);
    bytes
}

/// Runs the target on each file of its corpus, then on `mutations` inputs made of them. One that fails, hangs or ends the
/// process is left in a file, which belongs into the corpus once the fault is found.
fn replay(target: &str, mutations: usize) {
    let run = TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    let current = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
    let attempt = |what: &str, bytes: &[u8]| {
        std::fs::write(&current, bytes).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| run(bytes)));
        assert!(outcome.is_ok(), "{target}: {what} fails, and is kept in {}", current.display());
    };
    let mut inputs = vec![Vec::new()];
    attempt("no bytes", &[]);
    for file in files(&corpus(target)) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.len() <= MOST_BYTES, "{} has {} bytes", file.display(), bytes.len());
        attempt(&file.display().to_string(), &bytes);
        inputs.push(bytes);
    }
    assert!(inputs.len() > 1, "{target} has no corpus");
    let mut random = Random(target.bytes().fold(0, |seed, byte| seed << 5 ^ u64::from(byte)));
    for number in 0..mutations {
        let [one, other] = [random.below(inputs.len()), random.below(inputs.len())];
        let bytes = mutated(&inputs[one], &inputs[other], &mut random);
        attempt(&format!("mutation {number}"), &bytes);
    }
    let _ = std::fs::remove_file(&current);
}

macro_rules! replayed {
    ($($test:ident: $target:literal, $mutations:literal;)*) => {
        $(#[test]
        fn $test() {
            // In a process of its own, because an engine's settings and log are the process's.
            if common::in_child(stringify!($test), &[("MC_LOG_LEVEL", "ERROR")]) {
                return;
            }
            replay($target, $mutations);
        })*

        #[test]
        fn every_target_has_a_program_a_corpus_and_a_test() {
            let programs = std::fs::read_to_string(corpus("../Cargo.toml")).unwrap();
            let programs = programs.lines().filter_map(|line| line.strip_prefix("path = \"fuzz_targets/"));
            let programs: Vec<_> = programs.filter_map(|path| path.strip_suffix(".rs\"")).collect();
            let named: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            let folders = files(&corpus(""));
            let folders: Vec<_> = folders.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
            assert_eq!(programs, named);
            assert_eq!(folders, named);
            assert_eq!([$($target),*].as_slice(), named);
        }
    };
}

replayed! {
    answers_of_stores_and_peers_are_read_or_refused: "answers", 100;
    calls_of_the_c_abi_keep_their_promises: "c_abi", 600;
    p38_who_does_not_know_the_key_is_not_believed: "cluster_key", 2000;
    p37_requests_at_the_data_port_are_served_or_refused: "data_port", 400;
    p37_descriptors_are_read_or_refused: "descriptor", 4000;
    frames_of_the_handshake_port_are_read_or_refused: "handshake", 4000;
    requests_at_the_handshake_port_are_answered_or_refused: "handshake_port", 400;
    answers_of_peers_are_taken_or_fail_the_task: "initiator", 1500;
    json_is_read_or_refused: "json", 8000;
    names_and_addresses_are_read_or_refused: "names", 4000;
    settings_are_taken_or_warned_about: "settings", 2000;
    messages_of_engines_of_one_host_are_served_or_refused: "shm_port", 1000;
    p37_binary_messages_are_read_or_refused: "wire", 8000;
}

/// One input, by its path, for whoever looks for a fault: `FUZZ_INPUT=path FUZZ_TARGET=name cargo test --test fuzz one_input -- --ignored`.
#[test]
#[ignore = "it runs what FUZZ_TARGET and FUZZ_INPUT name"]
fn one_input() {
    let [target, input] = ["FUZZ_TARGET", "FUZZ_INPUT"].map(|name| std::env::var(name).unwrap());
    let run = TARGETS.iter().find(|(name, _)| *name == target).unwrap().1;
    run(&std::fs::read(input).unwrap());
}
