//! The metadata server as a service.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::common::{library_folder, succeed, top};
use super::{deploy, read, scratch};

const UNIT: &str = "mte-metadata-server.service";

fn analyze(arguments: &[&str], unit: &Path) -> Command {
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(arguments).arg(unit);
    analyze
}

#[test]
fn systemd_understands_the_unit_and_finds_it_closed() {
    let folder = scratch("systemd");
    let unit = folder.join(UNIT);
    let text = read(deploy("systemd").join(UNIT));
    let here = text.replace("/usr/local/bin/mte", env!("CARGO_BIN_EXE_mte"));
    assert_ne!(here, text, "install.sh looks for this path");
    std::fs::write(&unit, &here).unwrap();
    succeed("the unit", &mut analyze(&["verify", "--man=no"], &unit));
    // Tenths; 12 when it was written. A network service cannot do without the rest.
    succeed("its exposure", &mut analyze(&["security", "--offline=true", "--threshold=15"], &unit));
    // Both can fail.
    std::fs::write(
        &unit,
        here.replace("DynamicUser=yes", "DynamicUser=perhaps").replace("Type=exec", "Type=x"),
    )
    .unwrap();
    let said = analyze(&["verify", "--man=no"], &unit).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("perhaps"), "{said:?}");
    let open = here.lines().filter(|line| !line.starts_with("Protect") && !line.starts_with("SystemCall"));
    std::fs::write(&unit, open.collect::<Vec<_>>().join("\n")).unwrap();
    let judged = analyze(&["security", "--offline=true", "--threshold=15"], &unit).output().unwrap();
    assert!(!judged.status.success(), "{judged:?}");
}

#[test]
fn the_command_of_the_unit_is_one_that_mte_takes_and_has_no_token() {
    let text = read(deploy("systemd").join(UNIT));
    let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let help = Command::new(env!("CARGO_BIN_EXE_mte")).args(["metadata-server", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags: Vec<&str> = start.split_whitespace().filter(|word| word.starts_with("--")).collect();
    assert_eq!(flags, ["--listen", "--max-total", "--file"]);
    for flag in flags {
        assert!(help.contains(flag), "mte has no {flag}");
    }
    assert!(text.contains("Environment=LISTEN=127.0.0.1:"), "it serves other hosts by default");
}

#[test]
fn make_install_puts_the_unit_where_systemd_looks_and_only_beside_its_program() {
    let folder = scratch("unit");
    let (built, tree) = (folder.join("built"), folder.join("tree"));
    std::fs::create_dir_all(&built).unwrap();
    for file in ["libtransfer_engine.so", "libtransfer_engine.a"] {
        symlink(library_folder().join(file), built.join(file)).unwrap();
    }
    let make = |target: &str| {
        let mut make = Command::new("make");
        make.current_dir(top()).args(["--no-print-directory", target, "PREFIX=/usr"]);
        make.arg(format!("DESTDIR={}", tree.display())).env("BUILT", &built);
        for variable in ["MAKEFLAGS", "MAKELEVEL", "MFLAGS"] {
            make.env_remove(variable);
        }
        succeed(target, &mut make);
    };
    let unit = tree.join("usr/lib/systemd/system").join(UNIT);
    make("install");
    assert!(!unit.exists(), "a service without its program");
    symlink(env!("CARGO_BIN_EXE_mte"), built.join("mte")).unwrap();
    make("install");
    assert!(read(&unit).contains("\nExecStart=/usr/bin/mte metadata-server "), "{}", read(&unit));
    make("uninstall");
    assert!(!unit.exists(), "it is left over");
}
