//! The dependencies are what `deny.toml` allows, judged offline from `cargo metadata` of every feature: licences, sources and
//! forbidden crates; and all of them build with the `rust-version` that Cargo.toml states.
//!
//! Known vulnerabilities are no part of it: their list is online. `cargo deny check` asks for them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every package of the build on Linux, dependencies of tests and build scripts included.
fn packages() -> &'static [Value] {
    static METADATA: OnceLock<Vec<Value>> = OnceLock::new();
    METADATA.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut metadata = Command::new(cargo);
        metadata.current_dir(top()).args(["metadata", "--format-version=1", "--locked", "--offline"]);
        metadata.args(["--all-features", "--filter-platform=x86_64-unknown-linux-gnu"]);
        let output = metadata.output().unwrap();
        assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let mut metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let Value::Array(packages) = metadata["packages"].take() else { panic!("no packages: {metadata}") };
        assert!(packages.len() > 100, "only {} packages are found", packages.len());
        packages
    })
}

fn policy() -> toml::Table {
    std::fs::read_to_string(top().join("deny.toml")).unwrap().parse().unwrap()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// The strings of an array; an absent array has none.
fn strings(array: Option<&toml::Value>) -> BTreeSet<&str> {
    let items = array.and_then(toml::Value::as_array).into_iter().flatten();
    items.map(|item| item.as_str().unwrap()).collect()
}

/// The rows of an array of tables that are about `krate`.
fn rows<'a>(table: &'a toml::Value, key: &str, krate: &'a str) -> impl Iterator<Item = &'a toml::Value> + 'a {
    let rows = table.get(key).and_then(toml::Value::as_array).into_iter().flatten();
    rows.filter(move |row| row["crate"].as_str() == Some(krate))
}

/// Whether an SPDX expression holds when exactly the licences in `allowed` do; `/` is the older spelling of OR.
fn holds(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    fn any(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
        let mut result = all(words, allowed);
        while let Some((&("OR" | "/"), rest)) = words.split_first() {
            *words = rest;
            result |= all(words, allowed);
        }
        result
    }
    fn all(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
        let mut result = one(words, allowed);
        while let Some((&"AND", rest)) = words.split_first() {
            *words = rest;
            result &= one(words, allowed);
        }
        result
    }
    fn one(words: &mut &[&str], allowed: &BTreeSet<&str>) -> bool {
        let (&word, rest) = words.split_first().expect("a licence is missing");
        *words = rest;
        if word == "(" {
            let result = any(words, allowed);
            let (&closing, rest) = words.split_first().expect("a bracket is open");
            assert_eq!(closing, ")");
            *words = rest;
            return result;
        }
        match words {
            ["WITH", exception, rest @ ..] => {
                *words = rest;
                allowed.contains(format!("{word} WITH {exception}").as_str())
            }
            _ => allowed.contains(word),
        }
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " / ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut words = &words[..];
    let result = any(&mut words, allowed);
    assert!(words.is_empty(), "{expression}: {words:?} is left over");
    result
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for good in
        ["MIT", "GPL-3.0/MIT", "Apache-2.0 WITH LLVM-exception OR GPL-3.0", "(GPL-3.0 OR MIT) AND ISC"]
    {
        assert!(holds(good, &allowed), "{good}");
    }
    for bad in ["Apache-2.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "GPL-3.0 OR MIT AND GPL-2.0"] {
        assert!(!holds(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_licence_is_allowed() {
    let policy = policy();
    let licences = &policy["licenses"];
    let mut refused = Vec::new();
    for package in packages() {
        let mut allowed = strings(licences.get("allow"));
        for row in rows(licences, "exceptions", name(package)) {
            allowed.extend(strings(row.get("allow")));
        }
        let clarified = rows(licences, "clarify", name(package)).next().map(|row| {
            // The file still begins with the licence's name.
            let file = row["license-files"][0]["path"].as_str().unwrap();
            let folder = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap();
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let expression = row["expression"].as_str().unwrap();
            assert!(
                text.trim_start().starts_with(expression),
                "{}: {file} is not {expression}",
                name(package)
            );
            expression
        });
        let said = clarified.or(package["license"].as_str());
        if !said.is_some_and(|expression| holds(expression, &allowed)) {
            refused.push(format!("{}: {}", package["id"], said.unwrap_or("no licence")));
        }
    }
    assert!(refused.is_empty(), "not allowed by deny.toml:\n{}", refused.join("\n"));
}

#[test]
fn dependencies_come_from_the_registry() {
    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let elsewhere: Vec<_> = packages()
        .iter()
        // The project's own packages.
        .filter(|package| !name(package).starts_with(env!("CARGO_PKG_NAME")))
        .filter(|package| package["source"].as_str() != Some(REGISTRY))
        .map(|package| &package["id"])
        .collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn no_dependency_is_a_forbidden_one() {
    let policy = policy();
    let present: BTreeSet<&str> = packages().iter().map(name).collect();
    let rows = policy["bans"]["deny"].as_array().unwrap();
    let forbidden: Vec<_> =
        rows.iter().filter(|row| present.contains(row["crate"].as_str().unwrap())).collect();
    assert!(!rows.is_empty() && forbidden.is_empty(), "{forbidden:?}");
}

/// Clippy's `incompatible_msrv` looks at this crate's own code; this looks at what it is built from.
#[test]
fn every_dependency_builds_with_the_stated_rust_version() {
    let number =
        |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    let stated = env!("CARGO_PKG_RUST_VERSION");
    let newer: Vec<_> = packages()
        .iter()
        .filter_map(|package| Some((package["rust_version"].as_str()?, package)))
        .filter(|(version, _)| number(version).iter().cmp(number(stated).iter().chain([&0])).is_gt())
        .map(|(version, package)| format!("{} needs {version}", package["id"]))
        .collect();
    assert!(newer.is_empty(), "Cargo.toml states {stated}:\n{}", newer.join("\n"));
}
