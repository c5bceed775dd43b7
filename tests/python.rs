//! The Python packages: builds their wheels with the library under test, installs them, and runs `python/tests` with pytest.
//!
//! Needs what `make test` prepares: `target/pyvenv` (what builds and tests wheels), `target/venv` (upstream's wheel) and the library.
//! `TE_LIB` names another library, `TE_SKIP_INTEROP=1` skips all of it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks that something `make test` builds is there; its absence is a failure, never a silent skip.
fn prepared(path: PathBuf, what: &str) -> PathBuf {
    assert!(
        path.exists(),
        "{what} is missing at {}: run `make test`, which prepares it, or set TE_SKIP_INTEROP=1",
        path.display()
    );
    path
}

fn finished(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // The reasons of skipped tests are shown.
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

fn pytest(file: &str) {
    if std::env::var_os("TE_SKIP_INTEROP").is_some_and(|value| value == "1") {
        println!("SKIP {file}: TE_SKIP_INTEROP=1 is set");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    prepared(top.join("target/pyvenv/.test"), "what builds and tests the wheels");
    prepared(top.join("target/venv/bin/python"), "the Python with upstream's wheel");
    let library = std::env::var_os("TE_LIB")
        .map_or_else(|| top.join("target/release/libtransfer_engine.so"), PathBuf::from);
    let library = prepared(library, "the library");
    finished(Command::new(top.join("python/tests/prepare.sh")).arg(library).arg(env!("CARGO_BIN_EXE_mte")));
    let tests = top.join("target/python-tests");
    finished(
        Command::new(tests.join("venv/bin/python"))
            .args(["-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", file])
            .current_dir(top.join("python/tests"))
            .env("MTE_WHEELS", tests.join("wheels"))
            .env("MC_LOG_LEVEL", "ERROR")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("PYTHONPATH")
            .env_remove("MOONCAKE_TE_LIBRARY")
            .env_remove("MOONCAKE_ENGINE"),
    );
}

/// Declares one test per file, so that they run side by side.
macro_rules! files {
    ($($name:ident: $file:literal;)*) => {
        $(#[test] fn $name() { pytest($file); })*

        #[test]
        fn every_file_of_python_tests_is_run() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/tests");
            let mut found: Vec<_> = std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with("test_"))
                .collect();
            let mut listed = vec![$($file),*];
            found.sort();
            listed.sort();
            assert_eq!(found, listed);
        }
    };
}

files! {
    the_native_package: "test_native.py";
    mooncake_engine_gives_upstreams_results: "test_compatible.py";
    managed_buffers_and_bytes_at_addresses: "test_memory.py";
    memory_that_processes_share: "test_shared.py";
    upstreams_module_as_the_peer: "test_interop.py";
    threads_garbage_forks_signals_and_exits: "test_lifetimes.py";
    nobody_goes_on_before_a_closing_engine_is_destroyed: "test_closing.py";
    time_outs_that_no_clock_holds: "test_timeouts.py";
    bad_input_never_ends_the_interpreter: "test_bad_input.py";
    signatures_are_upstreams: "test_signatures.py";
    type_checkers_find_the_types: "test_types.py";
    wheels_beside_upstreams: "test_install.py";
}
