//! Programs of other languages that know the library by its C header only, as users' programs do: `tests/consumers`. Each
//! moves bytes between two engines and checks them.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`; the static one lies beside it. Two of them
//! get crates from crates.io, of the versions in their lock files.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{library, library_folder, simverbs, succeed, top};

fn consumer(name: &str) -> PathBuf {
    top().join("tests/consumers").join(name)
}

/// Where a consumer is built; what it was built of stays there for the next run.
fn out(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("consumers").join(name)
}

/// Cargo without what the cargo that runs this test tells its children about this package.
fn cargo(arguments: &[&str], consumer_name: &str, out_name: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST") || name == "RUSTFLAGS" {
            cargo.env_remove(name);
        }
    }
    cargo.args(arguments).arg("--locked").current_dir(consumer(consumer_name));
    cargo.env("CARGO_TARGET_DIR", out(out_name));
    cargo
}

/// As upstream's Rust crate is built: bindgen on the header, and either library.
fn rust_program_moves_bytes(link: &str, run_path: &Path) {
    let mut build = cargo(&["build", "--release"], "rust", &format!("rust-{link}"));
    build
        .env("TE_LINK", link)
        .env("TE_LIB_DIR", library_folder())
        .env("TE_INCLUDE_DIR", top().join("include"));
    succeed(&format!("building the Rust consumer ({link})"), &mut build);
    let program = out(&format!("rust-{link}")).join("release/te-consumer");
    succeed(&format!("the Rust consumer ({link})"), Command::new(program).env("LD_LIBRARY_PATH", run_path));
}

#[test]
fn a_rust_program_with_bindgen_links_the_shared_library() {
    rust_program_moves_bytes("dylib", &library_folder());
}

#[test]
fn a_rust_program_with_bindgen_links_the_static_library() {
    rust_program_moves_bytes("static", Path::new("/nonexistent"));
}

/// Without modules, so without the network.
fn go_program_moves_bytes(name: &str, link: &str) {
    let folder = out(name);
    std::fs::create_dir_all(&folder).unwrap();
    let program = folder.join("moves");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg("main.go").current_dir(consumer("go"));
    go.env("GO111MODULE", "off")
        .env("CGO_ENABLED", "1")
        .env("GOFLAGS", "")
        .env("GOCACHE", folder.join("cache"));
    go.env("CGO_CFLAGS", format!("-O2 -Wall -Werror -I{}", top().join("include").display()))
        .env("CGO_LDFLAGS", link);
    succeed(&format!("building the Go consumer with {link}"), &mut go);
    succeed(
        &format!("the Go consumer with {link}"),
        Command::new(program).env("LD_LIBRARY_PATH", library_folder()),
    );
}

#[test]
fn a_go_program_with_cgo_links_the_shared_library() {
    go_program_moves_bytes("go-shared", &format!("-L{} -ltransfer_engine", library_folder().display()));
}

#[test]
fn a_go_program_with_cgo_links_the_static_library() {
    let archive = library_folder().join("libtransfer_engine.a");
    let system = "-lgcc_s -lutil -lrt -lpthread -lm -ldl";
    go_program_moves_bytes("go-static", &format!("{} {system}", archive.display()));
}

/// The crate tests itself over RDMA; the devices are simulated.
#[test]
fn tokenspeeds_crate_passes_its_own_tests_on_the_library() {
    let arguments = ["test", "--package", "tokenspeed-mooncake", "--tests"];
    let mut build = cargo(&arguments, "tokenspeed", "tokenspeed");
    succeed("building the crate's tests", build.arg("--no-run"));
    let registry = format!("tokenspeed-{}", std::process::id());
    let path = std::env::join_paths([simverbs(), library_folder()]).unwrap();
    let mut test = cargo(&arguments, "tokenspeed", "tokenspeed");
    // Without the variable its test of transfers succeeds and does nothing, which its output tells.
    test.args(["--", "--nocapture"]).env("TS_MOONCAKE_LIBRARY", library()).env("LD_LIBRARY_PATH", path);
    test.env("SIMVERBS_DEVICES", "sim0,sim1").env("SIMVERBS_QUIET", "1").env("SIMVERBS_SHM", &registry);
    let output = test.output().unwrap();
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(&registry) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 passed") && !said.contains("skipping"), "{said}");
}
