//! The copy of the repository in `target/mutants/tree`, with every mutant in it, and how it is built.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::modules;
use crate::record::{Record, Verdict};
use crate::sites::{self, Site};
use crate::splice::{around, splice};

/// Sources that are changed: what decides, not what is translated to C, printed or asked of the environment.
const CHANGED: &[&str] = &[
    "engine",
    "handshake",
    "host_port",
    "json",
    "memory",
    "metadata",
    "runtime",
    "segment_desc",
    "topology",
    "transport",
];
/// Rounds of building and leaving out what does not compile. The compiler stops at the first of its passes that finds a fault.
const MOST_ROUNDS: usize = 30;

pub struct Paths {
    /// The repository.
    pub top: PathBuf,
    pub tree: PathBuf,
    /// Where cargo builds the tree.
    pub build: PathBuf,
    /// Numbers, identities and lines of the mutants in the tree.
    pub sites: PathBuf,
    /// What each test reaches, a file per program.
    pub cover: PathBuf,
    pub log: PathBuf,
    pub record: PathBuf,
    pub equivalent: PathBuf,
    /// The table of the record.
    pub table: PathBuf,
}

impl Paths {
    pub fn below(top: &Path) -> Paths {
        let scratch = top.join("target/mutants");
        Paths {
            top: top.to_path_buf(),
            tree: scratch.join("tree"),
            build: scratch.join("build"),
            sites: scratch.join("sites.txt"),
            cover: scratch.join("cover"),
            log: scratch.join("log.txt"),
            record: top.join("tests/mutants/record.txt"),
            equivalent: top.join("tests/mutants/equivalent.txt"),
            table: top.join("tests/mutants/RATES.md"),
        }
    }
}

/// Copies the repository, puts the mutants into the copy and makes it compile. Says how many there are.
pub fn instrument(paths: &Paths) -> Result<usize, String> {
    let mut files = Vec::new();
    for (path, (text, file)) in modules::sources(&paths.top)? {
        if is_changed(&path) {
            let sites = sites::find(&path, &text, &file);
            files.push((path, text, sites));
        }
    }
    copy(paths, &files.iter().map(|(path, _, _)| path.as_str()).collect())?;
    let mut record = Record::read(&paths.record);
    let known: BTreeSet<String> = files.iter().flat_map(|(_, _, sites)| identities(sites)).collect();
    record.verdicts.retain(|identity, _| known.contains(identity));
    let numbers: Vec<&String> = known.iter().collect();
    for round in 1..=MOST_ROUNDS {
        for (path, text, sites) in &mut files {
            for site in sites.iter_mut() {
                site.changes
                    .retain(|change| record.verdicts.get(&change.identity) != Some(&Verdict::Unbuildable));
            }
            let number = |identity: &str| {
                numbers.binary_search_by(|known| known.as_str().cmp(identity)).map_or(0, |at| at as u32 + 1)
            };
            put(&paths.tree.join(path.as_str()), &splice(text, sites, &number))?;
        }
        let faults = faults(paths, &["check", "-p", "transfer-engine", "--lib", "--features", "internals"])?;
        if faults.is_empty() {
            record.write()?;
            let lines = files
                .iter()
                .flat_map(|(_, _, sites)| sites.iter().flat_map(|site| &site.changes))
                .map(|change| {
                    let number = numbers.binary_search(&&change.identity).map_or(0, |at| at + 1);
                    format!("{number}\t{}\t{}\n", change.identity, change.line)
                });
            let lines: Vec<String> = lines.collect();
            put(&paths.sites, &lines.concat())?;
            return Ok(lines.len());
        }
        let mut left_out = BTreeSet::new();
        for (path, place, message) in &faults {
            let spliced =
                std::fs::read_to_string(paths.tree.join(path)).map_err(|e| format!("{path}: {e}"))?;
            let Some((kind, number)) = around(&spliced, *place) else { continue };
            let fault = numbers.get(number as usize - 1).ok_or_else(|| message.clone())?;
            if kind == 'm' {
                left_out.insert((*fault).clone());
                continue;
            }
            let sites = files.iter().flat_map(|(_, _, sites)| sites);
            let site = sites.filter(|site| site.changes.iter().any(|change| change.identity == **fault));
            left_out.extend(site.flat_map(|site| site.changes.iter().map(|change| change.identity.clone())));
        }
        if left_out.is_empty() {
            return Err(format!("the tree does not compile, at no mutant: {}", faults[0].2));
        }
        println!("round {round}: {} faults, {} mutants left out", faults.len(), left_out.len());
        record.verdicts.extend(left_out.into_iter().map(|identity| (identity, Verdict::Unbuildable)));
    }
    Err(format!("the tree does not compile after {MOST_ROUNDS} rounds"))
}

fn identities(sites: &[Site]) -> impl Iterator<Item = String> + '_ {
    sites.iter().flat_map(|site| site.changes.iter().map(|change| change.identity.clone()))
}

/// Writes a file unless it has that content, so that cargo builds only what changed.
fn put(path: &Path, text: &str) -> Result<(), String> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Whether that source gets mutants.
fn is_changed(path: &str) -> bool {
    CHANGED.iter().any(|name| path.starts_with(&format!("src/{name}/")) || path == format!("src/{name}.rs"))
}

/// Copies what git tracks, and what is new and not ignored; what is gone is taken away. `changed` is written later.
fn copy(paths: &Paths, changed: &BTreeSet<&str>) -> Result<(), String> {
    let mut git = Command::new("git");
    git.current_dir(&paths.top).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = git.output().map_err(|e| format!("git: {e}"))?.stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let files: BTreeSet<&str> = listed.split('\0').filter(|path| !path.is_empty()).collect();
    for path in &files {
        let (from, into) = (paths.top.join(path), paths.tree.join(path));
        let failed = |e: std::io::Error| format!("{path}: {e}");
        let Ok(kind) = std::fs::symlink_metadata(&from) else { continue };
        std::fs::create_dir_all(into.parent().unwrap_or(&paths.tree)).map_err(failed)?;
        if kind.is_symlink() {
            let target = std::fs::read_link(&from).map_err(failed)?;
            if std::fs::read_link(&into).is_ok_and(|old| old == target) {
                continue;
            }
            let _ = std::fs::remove_file(&into);
            std::os::unix::fs::symlink(target, &into).map_err(failed)?;
        } else if !(changed.contains(path) || ["src/lib.rs", "Cargo.toml"].contains(path)) {
            let bytes = std::fs::read(&from).map_err(failed)?;
            if !std::fs::read(&into).is_ok_and(|old| old == bytes) {
                std::fs::copy(&from, &into).map_err(failed)?;
            }
        }
    }
    let read = |path: &str| std::fs::read_to_string(paths.top.join(path)).map_err(|e| format!("{path}: {e}"));
    let open = read("src/lib.rs")?.replace("#![deny(", "#![allow(");
    let allowed = "#![allow(warnings, arithmetic_overflow, unconditional_panic)]";
    put(&paths.tree.join("src/lib.rs"), &format!("{allowed}\n{open}\n#[doc(hidden)]\npub mod mutant;\n"))?;
    put(&paths.tree.join("src/mutant.rs"), include_str!("switch.rs"))?;
    // A mutant may break every lint. Optimised a little, because each test runs often; dependencies as they are.
    let manifest =
        read("Cargo.toml")?.replace("= \"deny\"", "= \"allow\"").replace("= \"warn\"", "= \"allow\"");
    put(
        &paths.tree.join("Cargo.toml"),
        &format!("{manifest}\n[profile.dev.package.transfer-engine]\nopt-level = 1\n"),
    )?;
    remove_others(&paths.tree, &paths.tree, &files)
}

fn remove_others(folder: &Path, tree: &Path, files: &BTreeSet<&str>) -> Result<(), String> {
    for entry in std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_others(&path, tree, files)?;
            continue;
        }
        let name = path.strip_prefix(tree).unwrap_or(&path).to_string_lossy().into_owned();
        if !files.contains(name.as_str()) && name != "src/mutant.rs" {
            std::fs::remove_file(&path).map_err(|e| format!("{name}: {e}"))?;
        }
    }
    Ok(())
}

/// Cargo in the tree.
pub fn cargo(paths: &Paths) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&paths.tree).env("CARGO_TARGET_DIR", &paths.build).env("RUSTC_WRAPPER", "");
    cargo
}

/// The messages that cargo gives for a build.
pub fn messages(paths: &Paths, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let mut cargo = cargo(paths);
    cargo.args(arguments).args(["--locked", "--message-format=json"]).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|e| format!("cargo: {e}"))?;
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if !output.status.success() && !messages.iter().any(|message| message["message"]["level"] == "error") {
        return Err(format!("cargo {}: {}", arguments.join(" "), output.status));
    }
    Ok(messages)
}

/// The faults of a build: file, place in it, text.
fn faults(paths: &Paths, arguments: &[&str]) -> Result<Vec<(String, usize, String)>, String> {
    let mut faults = Vec::new();
    for message in messages(paths, arguments)?.iter().filter(|message| message["message"]["level"] == "error")
    {
        let message = &message["message"];
        let text = message["rendered"].as_str().unwrap_or_default().to_string();
        let spans: Vec<&Value> = message["spans"].as_array().into_iter().flatten().collect();
        for span in spans.iter().filter(|span| span["is_primary"] == true) {
            let place = span["byte_start"].as_u64().unwrap_or_default() as usize;
            faults.push((span["file_name"].as_str().unwrap_or_default().to_string(), place, text.clone()));
        }
    }
    Ok(faults)
}
