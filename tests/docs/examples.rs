//! Code in the pages. A comment on the line before a block says what it is:
//!
//! - `<!-- compile -->`: a file of its own;
//! - `<!-- compile: PARAMETERS -->`: the body of a function with these parameters; lines that include go to the top, and a body
//!   of C without any has the headers of the C API;
//! - `<!-- fragment -->`: not compiled.

use std::io::Write;
use std::process::{Command, Stdio};

use super::pages::{sources, split, top};

/// How the file is compiled, by the language of its block.
const COMPILERS: &[(&str, &str, &[&str])] = &[
    ("c", "cc", &["-std=c11", "-D_GNU_SOURCE", "-xc"]),
    ("cpp", "g++", &["-std=c++17", "-xc++"]),
    ("python", "python3", &["-c", "import ast, sys; ast.parse(sys.stdin.read())"]),
];
const STRICT: &[&str] =
    &["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unused-variable", "-fsyntax-only"];

/// A block as a file. `Err` if nothing says what it is.
fn source(language: &str, note: &str, code: &str) -> Result<Option<String>, String> {
    if language == "python" || note == "compile" {
        return Ok(Some(code.to_string()));
    }
    if note == "fragment" {
        return Ok(None);
    }
    let parameters = note.strip_prefix("compile: ").ok_or("no comment before it says what it is")?;
    let (includes, body): (Vec<&str>, Vec<&str>) =
        code.lines().partition(|line| line.starts_with("#include"));
    let (body, usual) = (body.join("\n"), ["#include \"transfer_engine_ext.h\""]);
    let includes = if includes.is_empty() { &usual[..] } else { &includes[..] };
    Ok(Some(format!(
        "{}\nvoid example({parameters});\nvoid example({parameters}) {{\n{body}\n}}\n",
        includes.join("\n")
    )))
}

fn compile(compiler: &str, arguments: &[&str], source: &str) -> Result<(), String> {
    let mut command = Command::new(compiler);
    command.args(arguments);
    if compiler != "python3" {
        command.args(STRICT).arg("-I").arg(top().join("include")).arg("-");
    }
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

#[test]
fn code_in_the_pages_compiles() {
    let (mut wrong, mut compiled) = (Vec::new(), std::collections::BTreeMap::new());
    for page in sources() {
        for block in split(&page.text).0 {
            let Some((_, compiler, arguments)) = COMPILERS.iter().find(|(name, ..)| *name == block.language)
            else {
                continue;
            };
            let result = match source(block.language, block.note, &block.code) {
                Ok(Some(source)) => {
                    *compiled.entry(block.language.to_string()).or_insert(0) += 1;
                    compile(compiler, arguments, &source)
                }
                Ok(None) => Ok(()),
                Err(why) => Err(why),
            };
            if let Err(why) = result {
                wrong.push(format!("{}:{}: {why}", page.path.display(), block.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (language, ..) in COMPILERS {
        assert!(
            compiled.get(*language).is_some_and(|count| *count > 0),
            "no {language} was compiled: {compiled:?}"
        );
    }
}
