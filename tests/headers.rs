//! The generated headers: committed as generated, clean in C11 and C++17, and with the values of the error table.
//!
//! `UPDATE_HEADERS=1` rewrites `include/` from what `build.rs` generated, instead of comparing.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use transfer_engine::error::codes::TABLE;

const HEADERS: [&str; 4] =
    ["error.h", "transfer_engine_c.h", "transfer_engine_ext.h", "transfer_engine_tokenspeed.h"];

fn include_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a compiler on `source`, which it reads from its standard input.
fn compile(compiler: &str, arguments: &[&str], source: &str) {
    let mut child = Command::new(compiler)
        .args(arguments)
        .arg("-I")
        .arg(include_folder())
        .arg("-")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{compiler} cannot be started: {e}"));
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{compiler} {arguments:?} on\n{source}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn committed_headers_are_those_that_build_rs_generates() {
    let update = std::env::var_os("UPDATE_HEADERS").is_some_and(|value| value == "1");
    for name in HEADERS {
        let generated = read(&Path::new(env!("OUT_DIR")).join(name));
        let committed = include_folder().join(name);
        if update {
            std::fs::write(&committed, generated).unwrap();
            continue;
        }
        assert!(
            read(&committed) == generated,
            "include/{name} is not what build.rs generates: run UPDATE_HEADERS=1 cargo test --test headers, then look at git diff"
        );
    }
}

#[test]
fn every_header_compiles_without_a_warning_as_c11_and_cpp17() {
    let api = "#include \"error.h\"\n#include \"transfer_engine_c.h\"\n";
    let ext = "#include \"transfer_engine_ext.h\"\n";
    let sources = [
        "#include \"error.h\"\n".to_string(),
        "#include \"transfer_engine_c.h\"\n".to_string(),
        api.to_string(),
        ext.to_string(),
        "#include \"transfer_engine_tokenspeed.h\"\n".to_string(),
        format!("{api}{ext}"),
        format!("{ext}{api}{ext}{api}"),
    ];
    let strict = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"];
    for (compiler, language) in [("gcc", ["-std=c11", "-xc"]), ("g++", ["-std=c++17", "-xc++"])] {
        for source in &sources {
            // An empty translation unit is itself a pedantic error in C.
            let source = format!("{source}int main(void) {{ return 0; }}\n");
            compile(compiler, &[&strict[..], &language].concat(), &source);
        }
    }
}

/// The `#define NAME (value)` lines of a header, guard excluded.
fn macros(header: &str) -> Vec<&str> {
    let defines = header.lines().filter_map(|line| line.strip_prefix("#define "));
    defines.filter_map(|define| define.split_once(' ')).map(|(name, _)| name).collect()
}

#[test]
fn error_macros_have_the_values_of_the_table() {
    let header = read(&include_folder().join("error.h"));
    let names: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(macros(&header), names, "macros of error.h and names of the table");

    let mut source = String::from("#include <stdio.h>\n#include \"error.h\"\nint main(void) {\n");
    for name in &names {
        // Subtracting shows a macro without parentheses around its negative value.
        source.push_str(&format!("    printf(\"%s %d %d\\n\", \"{name}\", {name}, 0 -{name});\n"));
    }
    source.push_str("    return 0;\n}\n");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("print_codes");
    let program_text = program.to_str().unwrap();
    compile("gcc", &["-std=c11", "-Wall", "-Werror", "-xc", "-o", program_text], &source);
    let output = Command::new(&program).output().unwrap();
    let expected: String =
        TABLE.iter().map(|row| format!("{} {} {}\n", row.name, row.value, -row.value)).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
