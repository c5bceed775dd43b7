//! What a release is made with: the comparison of the C interface, the list of parts, the folder of files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::common::{library, succeed, top};
use super::{python, read, scratch};

fn script(name: &str) -> Command {
    Command::new(top().join("scripts").join(name))
}

fn check(library: &Path, include: &Path) -> Output {
    script("abi.sh").arg("check").args([library, include]).output().unwrap()
}

/// The headers with one changed: it has `from` once at least, which becomes `to`.
fn headers(folder: &Path, header: &str, from: &str, to: &str) -> PathBuf {
    let include = folder.join("include");
    let _ = std::fs::remove_dir_all(&include);
    std::fs::create_dir(&include).unwrap();
    for name in ["error.h", "transfer_engine_c.h", "transfer_engine_ext.h", "transfer_engine_tokenspeed.h"] {
        let text = read(top().join("include").join(name));
        let changed = if name == header { text.replacen(from, to, 1) } else { text.clone() };
        assert_eq!(changed == text, name != header, "{name} does not have {from}");
        std::fs::write(include.join(name), changed).unwrap();
    }
    include
}

#[test]
fn the_interface_is_that_of_the_last_release_and_perhaps_more() {
    let output = check(&library(), &top().join("include"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = scratch("abi-more");
    let more = headers(
        &folder,
        "transfer_engine_ext.h",
        "const char *mte_version",
        "int mte_more(int a);\nconst char *mte_version",
    );
    let output = check(&library(), &more);
    assert!(output.status.success(), "a new function: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_gone_or_different_in_the_interface_is_noticed() {
    let folder = scratch("abi-less");
    for (header, from, to, named) in [
        // A function, an argument's type, a member of a struct, and a value.
        ("transfer_engine_c.h", "int freeBatchID(", "int freedBatchID(", "freeBatchID"),
        (
            "transfer_engine_c.h",
            "int freeBatchID(transfer_engine_t engine",
            "int freeBatchID(int engine",
            "freeBatchID",
        ),
        (
            "transfer_engine_c.h",
            "uint64_t transferred_bytes;",
            "uint32_t transferred_bytes;",
            "transferred_bytes",
        ),
        ("error.h", "ERR_INVALID_ARGUMENT (-1)", "ERR_INVALID_ARGUMENT (-99)", "ERR_INVALID_ARGUMENT"),
    ] {
        let output = check(&library(), &headers(&folder, header, from, to));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{from}: {said}");
    }
}

#[test]
fn a_symbol_that_the_library_does_not_export_any_more_is_noticed() {
    let folder = scratch("abi-symbol");
    let record = std::fs::read_dir(top().join("release")).unwrap().map(|entry| entry.unwrap().path());
    let symbols = record.filter(|path| path.extension().is_some_and(|end| end == "symbols")).max().unwrap();
    let source: String = read(&symbols)
        .lines()
        .filter(|symbol| *symbol != "submitTransfer")
        .map(|symbol| format!("void {symbol}(void) {{}}\n"))
        .collect();
    std::fs::write(folder.join("less.c"), source).unwrap();
    let less = folder.join("less.so");
    succeed(
        "a library",
        Command::new("cc")
            .args(["-w", "-shared", "-fPIC", "-fno-builtin", "-o"])
            .arg(&less)
            .arg(folder.join("less.c")),
    );
    let output = check(&less, &top().join("include"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("\nsubmitTransfer\n"), "{said}");
}

fn parts(epoch: &str) -> String {
    let output = script("sbom.py").env("SOURCE_DATE_EPOCH", epoch).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_list_of_parts_is_valid_cyclonedx_names_what_is_shipped_and_is_the_same_each_time() {
    let text = parts("1700000000");
    assert_eq!(parts("1700000000"), text);
    let file = scratch("parts").join("parts.json");
    std::fs::write(&file, &text).unwrap();
    let judge = "import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()))";
    succeed("CycloneDX' schema", Command::new(python("python")).args(["-c", judge]).arg(&file));
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["metadata"]["timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(list["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let components = list["components"].as_array().unwrap();
    let scope = |name: &str| {
        let found = components.iter().find(|component| component["name"] == name);
        found.map(|component| component["scope"].as_str().unwrap())
    };
    // Compiled into what is shipped; a build script's; a macro's; a test's.
    assert_eq!(scope("rustls"), Some("required"));
    assert_eq!((scope("cbindgen"), scope("serde_derive")), (Some("excluded"), Some("excluded")));
    assert_eq!(scope("proptest"), None);
    let own = |component: &Value| component["name"].as_str().unwrap().starts_with("transfer-engine");
    for component in components {
        assert!(!component["licenses"][0]["expression"].as_str().unwrap().is_empty(), "{component}");
        let hash = component["hashes"][0]["content"].as_str().map(str::len);
        assert!(hash == Some(64) || own(component), "{component}");
    }
}

#[test]
fn the_files_of_a_release_are_complete_have_checksums_and_are_the_same_each_time() {
    let folder = scratch("dist");
    for (file, text) in [
        ("built/libtransfer_engine.so", "shared"),
        ("built/libtransfer_engine.a", "static"),
        ("built/mte", "program"),
        ("debian/x_1_amd64.deb", "package"),
        ("wheels/x-1-py3-none-any.whl", "wheel"),
    ] {
        let path = folder.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let dist = |out: &str| {
        let out = folder.join(out);
        let mut dist = script("dist.sh");
        dist.env("BUILT", folder.join("built"))
            .env("DEBS", folder.join("debian"))
            .env("WHEELS", folder.join("wheels"));
        succeed("dist", dist.env("DIST", &out).env("DIRTY", "1"));
        succeed(
            "the checksums",
            Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&out),
        );
        read(out.join("SHA256SUMS"))
    };
    let sums = dist("one");
    assert_eq!(dist("two"), sums);
    let version = env!("CARGO_PKG_VERSION");
    let mut names: Vec<&str> = sums.lines().map(|line| line.rsplit(' ').next().unwrap()).collect();
    names.sort_unstable();
    let [binaries, sources, list] =
        ["-linux-x86_64.tar.gz", ".tar.gz", ".cdx.json"].map(|end| format!("transfer-engine-{version}{end}"));
    let mut wanted = vec![&binaries[..], &sources, &list, "x-1-py3-none-any.whl", "x_1_amd64.deb"];
    wanted.sort_unstable();
    assert_eq!(names, wanted);
    let listed = Command::new("tar").arg("-tzf").arg(folder.join("one").join(&binaries)).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for file in [
        "lib/libtransfer_engine.so",
        "bin/mte",
        "include/error.h",
        "lib/systemd/system/mte-metadata-server.service",
        "LICENSE",
    ] {
        assert!(
            listed.contains(&format!("transfer-engine-{version}-linux-x86_64/{file}\n")),
            "{file}: {listed}"
        );
    }
    std::fs::remove_dir_all(folder.join("wheels")).unwrap();
    let mut without = script("dist.sh");
    without
        .env("BUILT", folder.join("built"))
        .env("DEBS", folder.join("debian"))
        .env("WHEELS", folder.join("wheels"));
    assert!(
        !without.env("DIST", folder.join("three")).env("DIRTY", "1").output().unwrap().status.success(),
        "a release without wheels"
    );
}
