//! Every way to link or load the built libraries and the installed package; each program moves bytes and checks them.
//!
//! `TE_LIB` names another library than `target/release/libtransfer_engine.so`; the static one lies beside it, as
//! `scripts/archive.sh` left it. Programs and projects are those of `tests/link`.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{library, library_folder, succeed, top};

/// What `transfer_engine.pc` gives to `--static`.
const SYSTEM: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

fn archive() -> PathBuf {
    library_folder().join("libtransfer_engine.a")
}

/// An empty folder for one test.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("linking").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn source(name: &str) -> PathBuf {
    top().join("tests/link").join(name)
}

/// A compiler and its language for a file called `.c`, warnings being errors.
fn compiler(name: &str) -> Command {
    let mut compiler = Command::new(name);
    match name {
        "g++" => compiler.args(["-std=c++17", "-xc++"]),
        _ => compiler.args(["-std=c11", "-D_GNU_SOURCE", "-xc"]),
    };
    compiler.args(["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    compiler
}

/// Compiles a program of `tests/link` with `headers`, links it with `rest`, runs it with the library path `run_path`.
fn builds_and_runs(
    compiler_name: &str,
    name: &str,
    headers: &Path,
    out: &Path,
    rest: &[String],
    run_path: &Path,
) {
    let program = out.join(format!("{name}-{compiler_name}"));
    let mut compile = compiler(compiler_name);
    compile.arg("-I").arg(headers).arg(source(name)).args(["-xnone", "-o"]).arg(&program).args(rest);
    succeed(&format!("building {name} with {compiler_name} and {rest:?}"), &mut compile);
    succeed(
        &format!("{name}, linked with {rest:?}"),
        Command::new(&program).env("LD_LIBRARY_PATH", run_path),
    );
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_string()
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

/// The output of a tool, in words.
fn words_of(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_string).collect()
}

/// Folder with no library in it, so that what runs with it as library path was linked statically.
fn nowhere() -> &'static Path {
    Path::new("/nonexistent")
}

#[test]
fn c_and_cpp_programs_link_the_shared_library() {
    let out = scratch("shared");
    let link = [format!("-L{}", library_folder().display()), "-ltransfer_engine".into()];
    for compiler in ["gcc", "g++"] {
        builds_and_runs(compiler, "moves.c", &top().join("include"), &out, &link, &library_folder());
    }
}

#[test]
fn c_and_cpp_programs_link_the_static_library_alone() {
    let out = scratch("static");
    for compiler in ["gcc", "g++"] {
        for more in
            [&[][..], &["-Wl,--gc-sections"], &["-Wl,--whole-archive"], &["-static-pie", "-static-libgcc"]]
        {
            // A program without any shared library takes libgcc_eh in the place of libgcc_s.
            let system = if more.contains(&"-static-pie") { &["-lgcc_eh", "-lm"][..] } else { &SYSTEM[..] };
            let link =
                [strings(more), vec![text(&archive()), "-Wl,--no-whole-archive".into()], strings(system)]
                    .concat();
            builds_and_runs(compiler, "moves.c", &top().join("include"), &out, &link, nowhere());
        }
    }
}

/// The archive's global symbols would meet those of another Rust archive; what it has is what the shared library exports.
#[test]
fn the_static_library_defines_the_functions_of_the_shared_one_and_nothing_else() {
    let names = |arguments: &[&str], file: PathBuf| -> BTreeSet<String> {
        let mut nm = Command::new("nm");
        nm.args(arguments).args(["--defined-only", "--format=just-symbols"]).arg(file);
        words_of(&mut nm).into_iter().filter(|word| !word.ends_with(':')).collect()
    };
    let exported = names(&["-D"], library());
    assert!(exported.contains("createTransferEngine"), "nm is not understood: {exported:?}");
    assert_eq!(
        names(&["--extern-only"], archive()),
        exported,
        "run `make library`: it runs scripts/archive.sh"
    );
    let sections = words_of(Command::new("objdump").arg("-h").arg(archive()));
    let useless: Vec<_> =
        sections.iter().filter(|word| word.starts_with(".llvm") || word.starts_with(".debug")).collect();
    assert!(useless.is_empty(), "the static library has {useless:?}");
}

/// Every Rust archive has the run-time of its toolchain inside.
#[test]
fn the_static_library_links_beside_another_rust_library() {
    let out = scratch("beside");
    let other = out.join("libbeside.a");
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--crate-type=staticlib", "--edition=2021", "-O", "-o"]).arg(&other).arg(source("beside.rs"));
    succeed("building the other library", &mut rustc);
    let (ours, other) = (text(&archive()), text(&other));
    for order in [[ours.clone(), other.clone()], [other, ours]] {
        let link = [&order[..], &strings(&SYSTEM)].concat();
        builds_and_runs("gcc", "beside.c", &top().join("include"), &out, &link, nowhere());
    }
}

#[test]
fn a_panic_ends_at_the_border_of_either_library() {
    let out = scratch("panics");
    let shared = [format!("-L{}", library_folder().display()), "-ltransfer_engine".into()];
    builds_and_runs("gcc", "panics.c", &top().join("include"), &out, &shared, &library_folder());
    let link = [&[text(&archive())], &strings(&SYSTEM)[..]].concat();
    builds_and_runs("gcc", "panics.c", &top().join("include"), &out, &link, nowhere());
    builds_and_runs(
        "gcc",
        "panics.c",
        &top().join("include"),
        &out,
        &[&link[..], &strings(&["-Wl,--gc-sections"])].concat(),
        nowhere(),
    );
}

#[test]
fn p29_a_host_loads_the_library_and_plugins_that_bring_it_along() {
    let out = scratch("plugins");
    let build = |what: &str, name: &str, file: &str, rest: &[String]| {
        let path = out.join(file);
        let mut compile = compiler("gcc");
        compile
            .arg("-I")
            .arg(top().join("include"))
            .arg(source(name))
            .args(["-xnone", "-o"])
            .arg(&path)
            .args(rest);
        succeed(what, &mut compile);
        path
    };
    let plugin = strings(&["-shared", "-fPIC", "-fvisibility=hidden"]);
    let folder = library_folder().display().to_string();
    let link = [format!("-L{folder}"), format!("-Wl,-rpath,{folder}"), "-ltransfer_engine".into()];
    let linked = build("a plugin", "plugin.c", "linked.so", &[&plugin[..], &link].concat());
    // The library has threads, so what has it inside must stay mapped, as the shared one does by itself.
    let inside = strings(&["-Wl,-z,nodelete", "-Wl,--exclude-libs,ALL", &text(&archive())]);
    let holding =
        build("a plugin", "plugin.c", "holding.so", &[&plugin[..], &inside, &strings(&SYSTEM)].concat());
    let host = build("the host", "host.c", "host", &strings(&["-ldl"]));
    succeed("the host", Command::new(host).arg(library()).args([linked, holding]));
}

/// Runs `make install` or `uninstall` of the libraries under test.
fn make(target: &str, variables: &[String]) {
    let mut make = Command::new("make");
    make.current_dir(top())
        .args(["--no-print-directory", target])
        .args(variables)
        .env("BUILT", library_folder());
    for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
        make.env_remove(variable);
    }
    succeed(&format!("make {target} {variables:?}"), &mut make);
}

#[test]
fn pkg_config_links_the_installed_libraries() {
    let out = scratch("pkg-config");
    let prefix = out.join("prefix");
    make(
        "install",
        &[format!("PREFIX={}", prefix.display()), format!("INCLUDEDIR={}/include/te", prefix.display())],
    );
    let asks = |flags: &[&str]| {
        let mut tool = Command::new("pkg-config");
        words_of(tool.args(flags).arg("transfer_engine").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")))
    };
    let headers = prefix.join("include/te");
    assert_eq!(asks(&["--cflags"]), [format!("-I{}", headers.display())]);
    assert_eq!(asks(&["--modversion"]), [env!("CARGO_PKG_VERSION")]);
    for compiler in ["gcc", "g++"] {
        builds_and_runs(compiler, "moves.c", &headers, &out, &asks(&["--libs"]), &prefix.join("lib"));
    }
    // With both libraries there, a linker takes the shared one unless it is told.
    let mut link = asks(&["--libs", "--static"]);
    for flag in SYSTEM {
        assert!(link.iter().any(|word| word == flag), "{link:?} lacks {flag}");
    }
    std::fs::remove_file(prefix.join("lib/libtransfer_engine.so")).unwrap();
    link.push("-O2".into());
    builds_and_runs("gcc", "moves.c", &headers, &out, &link, nowhere());
}

/// The tree is where a package's files are before they are packed, so not where it was told it would be.
#[test]
fn a_cmake_project_finds_the_installed_package() {
    let out = scratch("cmake");
    let tree = out.join("tree");
    let variables = [
        format!("DESTDIR={}", tree.display()),
        "PREFIX=/usr".into(),
        "LIBDIR=/usr/lib/x86_64-linux-gnu".into(),
        "INCLUDEDIR=/usr/include/te".into(),
    ];
    make("install", &variables);
    let configure = |wanted: &str, build: &Path| {
        let mut cmake = Command::new("cmake");
        cmake.arg("-S").arg(source("cmake")).arg("-B").arg(build).arg(format!("-DWANTED={wanted}"));
        cmake.args(["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_LIBRARY_ARCHITECTURE=x86_64-linux-gnu"]);
        cmake.arg(format!("-DCMAKE_PREFIX_PATH={}", tree.join("usr").display()));
        cmake
    };
    let build = out.join("build");
    succeed("configuring", &mut configure(env!("CARGO_PKG_VERSION"), &build));
    succeed("building", Command::new("cmake").arg("--build").arg(&build));
    for name in ["shared", "static", "transfer_engine", "cxx_shared", "cxx_static", "cxx_transfer_engine"] {
        succeed(name, &mut Command::new(build.join(format!("moves_{name}"))));
    }
    let later = configure("99.0", &out.join("later")).output().unwrap();
    assert!(!later.status.success(), "version 99 was found");
    assert!(String::from_utf8_lossy(&later.stderr).contains(env!("CARGO_PKG_VERSION")), "{later:?}");
}

/// The files and folders below `folder`.
fn tree_of(folder: &Path) -> BTreeSet<String> {
    words_of(Command::new("find").current_dir(folder).args([".", "-mindepth", "1"])).into_iter().collect()
}

#[test]
fn uninstall_removes_what_install_put_there_and_nothing_else() {
    let tree = scratch("uninstall");
    let variables = [format!("DESTDIR={}", tree.display()), "PREFIX=/usr".into(), "COMPANIONS=1".into()];
    for file in [
        "include/other.h",
        "include/transport/other.h",
        "lib/other.so",
        "lib/pkgconfig/other.pc",
        "lib/cmake/other/x",
        "bin/x",
        "share/man/man1/x",
        "share/bash-completion/completions/x",
        "share/zsh/site-functions/x",
        "share/fish/vendor_completions.d/x",
    ] {
        let file = tree.join("usr").join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    let before = tree_of(&tree);
    make("companions", &[]);
    make("install", &variables);
    let installed = tree_of(&tree);
    for file in [
        "lib/libtransfer_engine.so",
        "lib/libtransfer_engine.a",
        "lib/libbase.a",
        "lib/libasio.so",
        "include/error.h",
    ] {
        assert!(installed.contains(&format!("./usr/{file}")), "{file} is not in {installed:?}");
    }
    assert!(!std::fs::read_to_string(tree.join("usr/lib/pkgconfig/transfer_engine.pc"))
        .unwrap()
        .contains('@'));
    make("uninstall", &variables);
    assert_eq!(tree_of(&tree), before);
    // Under the names of the empty libraries, but not ours: a linker script, and what no tool understands.
    for (file, text) in [("lib/libasio.so", "INPUT(libasio.so.1)\n"), ("lib/libbase.a", "no archive\n")] {
        std::fs::write(tree.join("usr").join(file), text).unwrap();
    }
    let others = tree_of(&tree);
    make("uninstall", &variables);
    assert_eq!(tree_of(&tree), others);
}

/// cargo-nextest has the folder in the tests' library path: a loader that finds a stand-in by its name starts nothing.
#[test]
fn no_program_finds_a_stand_in_of_the_c_library_by_name() {
    succeed("making the stand-ins", &mut Command::new(top().join("scripts/glibc.sh")));
    for file in std::fs::read_dir(top().join("target/glibc")).unwrap() {
        let file = file.unwrap().path();
        let header = Command::new("readelf").args(["--dynamic", "--wide"]).arg(&file).output().unwrap();
        let header = String::from_utf8_lossy(&header.stdout).into_owned();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(!header.contains(&format!("[{name}]")), "{name} is what programs look for at run time");
    }
}

/// glibc 2.28 is what the packages promise to run on (`scripts/glibc.sh`).
#[test]
fn the_shared_library_runs_on_glibc_2_28() {
    let symbols = words_of(Command::new("objdump").arg("-T").arg(library()));
    let versions = symbols.iter().filter_map(|word| word.trim_matches(['(', ')']).strip_prefix("GLIBC_"));
    let versions: BTreeSet<Vec<u32>> =
        versions.map(|version| version.split('.').map(|part| part.parse().unwrap()).collect()).collect();
    assert!(
        versions.contains(&vec![2, 17]) || versions.contains(&vec![2, 14]),
        "objdump is not understood: {versions:?}"
    );
    let later: Vec<_> = versions.iter().filter(|version| **version > vec![2, 28]).collect();
    assert!(
        later.is_empty(),
        "{later:?} are later than 2.28: build it with `make library`, which sets TE_GLIBC"
    );
}
