//! The architecture, read off the source: which module may name which, and what only some modules may do.
//!
//! Looks at every file of `src` except `src/bin`, without comments, string contents and `#[cfg(test)]` code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest file.
const MAX_LINES: usize = 450;
/// How far above an `unsafe` block its reason may begin: the statement may have begun on an earlier line.
const REASON_LINES: usize = 4;

/// Which paths below `crate::` the files of a layer may name. The first row whose path fits is the file's layer;
/// `*` stands for one folder. A layer may name itself, unless the row lists parts of it.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "ffi",
        &[
            "engine",
            "error",
            "handshake::Notification",
            "memory::Range",
            "runtime::signals",
            "transport::report",
        ],
    ),
    (
        "engine",
        &[
            // Its own part of the transports: never one of them.
            "transport::host",
            "transport::incarnation",
            "transport::local",
            "transport::offer",
            "transport::protocol",
            "transport::ranges",
            "transport::report",
            "transport::slice",
            "transport::table",
            "transport::Link",
            "transport::Transport",
            "transport::Takes",
            "metadata",
            "handshake",
            "topology",
            "memory",
            "runtime",
            "observe",
            "config",
            "error",
            "host_port",
            "json",
            "segment_desc",
        ],
    ),
    // The one place that names every transport.
    ("transport::table", &["transport", "config", "error"]),
    (
        "transport::*",
        &[
            "memory",
            "runtime",
            "observe",
            "config",
            "error",
            "json",
            "host_port",
            "segment_desc",
            // NIC choice is made per slice, and type-0 messages are plain data.
            "topology",
            "handshake::ConnectionMessage",
            "transport::host",
            "transport::incarnation",
            "transport::offer",
            "transport::protocol",
            "transport::ranges",
            "transport::report",
            "transport::slice",
            "transport::Link",
            "transport::Transport",
            "transport::Takes",
        ],
    ),
    (
        "transport",
        &[
            "memory",
            "runtime",
            "config",
            "error",
            "json",
            "host_port",
            "segment_desc",
            "topology::Matrix",
            "handshake::ConnectionMessage",
            "transport::host",
            "transport::incarnation",
            "transport::offer",
            "transport::protocol",
            "transport::ranges",
            "transport::report",
            "transport::slice",
            "transport::Link",
            "transport::Transport",
            "transport::Takes",
        ],
    ),
    (
        "metadata",
        &["handshake", "segment_desc", "json", "host_port", "config", "error", "runtime", "observe"],
    ),
    ("handshake", &["json", "host_port", "config", "error", "runtime", "observe"]),
    ("topology", &["json", "error", "runtime"]),
    ("memory", &["error", "runtime"]),
    ("segment_desc", &["json", "error"]),
    ("observe", &["config", "error"]),
    ("runtime", &["config", "error"]),
    ("json", &["error"]),
    ("host_port", &["error", "observe"]),
    ("config", &[]),
    ("error", &[]),
];

/// Words that only some files may contain; a place ending in `/` is a folder.
const RESERVED: &[(&str, &[&str])] = &[
    ("env::var", &["config.rs"]),
    ("extern \"C\"", &["ffi/", "runtime/fork.rs", "runtime/signals.rs", "transport/rdma/verbs/library.rs"]),
    ("dlopen", &["transport/rdma/verbs/library.rs"]),
    ("dlsym", &["transport/rdma/verbs/library.rs"]),
    ("no_mangle", &["ffi/"]),
    ("println!", &[]),
    ("print!", &[]),
    ("eprintln!", &[]),
    ("eprint!", &[]),
    ("dbg!", &[]),
    ("process::exit", &[]),
    ("process::abort", &[]),
    ("libc::exit", &[]),
    ("libc::abort", &[]),
    ("libc::_exit", &["runtime/signals.rs"]),
    ("libc::sigaction", &["runtime/signals.rs"]),
    ("libc::signal", &[]),
    ("setrlimit", &[]),
    ("write_vectored", &[]),
    ("writev", &[]),
    (
        "allow(unsafe_code)",
        &[
            "ffi/",
            "transport/tcp/sock.rs",
            "transport/rdma/verbs/",
            "transport/local/",
            "transport/rdma/memory.rs",
            "runtime/fork.rs",
            "runtime/interfaces.rs",
            "runtime/poll.rs",
            "runtime/thread.rs",
            "runtime/signals.rs",
            "runtime/wakeup.rs",
            "topology/pages.rs",
        ],
    ),
];

/// Where a transport's name may stand beside its own folder: in tables, in what C programs and settings call so, and in
/// the words of upstream. A place ending in `/` is a folder.
const NAMERS: &[(&str, &str)] = &[
    ("transport/rdma/", "its own"),
    ("transport/tcp/", "its own"),
    ("transport/table.rs", "the table of transports"),
    ("transport/mod.rs", "the folders are declared there"),
    ("config.rs", "the settings of each"),
    ("error/codes.rs", "what upstream's codes mean"),
    ("ffi/types.rs", "upstream's structs"),
    ("engine/reports.rs", "upstream's words for an empty list"),
    ("topology/discover.rs", "the devices of the kernel's class are called so"),
    ("runtime/ports.rs", "the protocol of a socket"),
    ("metadata/", "the sockets of the stores"),
];

/// One file of `src`.
struct Source {
    /// Path below `src`, with `/`.
    path: String,
    raw: String,
    /// Without comments, contents of literals and test code; the same lines as `raw`.
    code: String,
}

impl Source {
    /// The module's path: `transport::tcp::lane`; empty for the crate itself.
    fn module(&self) -> Vec<&str> {
        let stem = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        stem.split('/').filter(|name| *name != "lib").collect()
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&top, &mut found);
    found.sort();
    let mut sources = Vec::new();
    let mut test_files = BTreeSet::new();
    for path in found {
        let raw = std::fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&top).unwrap().to_string_lossy().replace('\\', "/");
        let (code, test_modules) = without_tests(&bare(&raw));
        let folder = path.trim_end_matches(".rs").trim_end_matches("/mod");
        test_files.extend(test_modules.iter().map(|name| format!("{folder}/{name}.rs")));
        sources.push(Source { path, raw, code });
    }
    sources.retain(|source| !test_files.contains(&source.path) && !source.path.starts_with("bin/"));
    assert!(sources.len() > 30 && !test_files.is_empty(), "src is not found or not understood");
    sources
}

/// `text` with comments and contents of literals blanked out. The `"C"` of `extern "C"` stays.
fn bare(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut blank = |from: usize, to: usize| {
        out[from..to].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    };
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let from = at;
        if rest.starts_with(b"//") {
            at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            blank(from, at);
        } else if rest.starts_with(b"/*") {
            at += text[at..].find("*/").map_or(rest.len(), |end| end + 2);
            blank(from, at);
        } else if let Some(hashes) = raw_string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            let end = format!("\"{}", "#".repeat(hashes));
            let begin = at + hashes + 2;
            at = begin + text[begin..].find(&end).unwrap() + end.len();
            blank(begin, at - end.len());
        } else if rest[0] == b'"' {
            at += 1;
            while bytes[at] != b'"' {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            at += 1;
            if !text[..from].ends_with("extern ") {
                blank(from + 1, at - 1);
            }
        } else if rest[0] == b'\'' {
            // A character; else a lifetime, which has no second quote.
            let escaped = rest.get(1) == Some(&b'\\');
            let first = 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
            let end = if escaped {
                2 + rest[2..].iter().skip(1).position(|b| *b == b'\'').unwrap() + 1
            } else {
                first
            };
            if rest.get(end) == Some(&b'\'') {
                blank(at + 1, at + end);
                at += end;
            }
            at += 1;
        } else {
            at += 1;
        }
    }
    String::from_utf8(out).unwrap()
}

/// The number of hashes if a raw string begins here.
fn raw_string(rest: &[u8], before: Option<u8>) -> Option<usize> {
    if rest[0] != b'r'
        || before.is_some_and(|byte| byte.is_ascii_alphanumeric() && byte != b'b' || byte == b'_')
    {
        return None;
    }
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    (rest.get(1 + hashes) == Some(&b'"')).then_some(hashes)
}

/// Blanks out the items under `#[cfg(test)]`; the second value names those that are files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let mut out = code.to_string();
    let mut modules = Vec::new();
    while let Some(from) = out.find(MARK) {
        let item = &out[from + MARK.len()..];
        let brace = item.find('{').unwrap_or(item.len());
        let semicolon = item.find(';').unwrap_or(item.len());
        let len = if semicolon < brace {
            if let Some((_, name)) = item[..semicolon].trim().split_once("mod ") {
                modules.push(name.to_string());
            }
            semicolon + 1
        } else {
            closing(&item[brace..]) + brace
        };
        let to = from + MARK.len() + len;
        let blanked: String = out[from..to].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        out.replace_range(from..to, &blanked);
    }
    (out, modules)
}

/// Length of the bracketed text that `text` begins with.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (index, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index + 1;
        }
    }
    panic!("a bracket is never closed: {text}");
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` stands by itself in `code`.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let begins_word = word.starts_with(is_word);
        !(begins_word && code[..*at].ends_with(is_word))
    })
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The paths of a use tree or expression, whose text begins at `text`: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut path = prefix.to_vec();
    let mut rest = text.trim_start();
    loop {
        if rest.starts_with('{') {
            let inner = &rest[1..closing(rest) - 1];
            let mut depth = 0;
            for part in inner.split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            }) {
                if !part.trim().is_empty() {
                    expand(part, &path, found);
                }
            }
            return;
        }
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let after = rest[name.len()..].trim_start();
        if name == "super" {
            path.pop();
        } else if name != "self" && !name.is_empty() {
            path.push(name);
        }
        match after.strip_prefix("::") {
            Some(more) if !more.starts_with('<') => rest = more.trim_start(),
            _ => break,
        }
    }
    found.push(path);
}

/// Every path into this crate that the file names, with its line. `super` and `self` are resolved; the names of
/// items behind the module are part of the path.
fn references(source: &Source) -> Vec<(usize, String)> {
    let module: Vec<String> = source.module().iter().map(|name| name.to_string()).collect();
    let mut references = Vec::new();
    for (root, base) in [("crate::", Vec::new()), ("super::", module.clone()), ("self::", module)] {
        for at in places(&source.code, root) {
            let before = &source.code[..at];
            // `$crate::` of a macro names this crate too; `pub(in super::x)` and `super::super` are no new paths.
            if before.ends_with("super::") || before.ends_with("self::") {
                continue;
            }
            let text = if root == "crate::" { &source.code[at + root.len()..] } else { &source.code[at..] };
            let mut paths = Vec::new();
            expand(text, &base, &mut paths);
            let line = line_of(&source.code, at);
            references.extend(paths.into_iter().map(|path| (line, path.join("::"))));
        }
    }
    references
}

fn is_below(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with("::"))
}

/// The layer of a module: what it may name in the whole.
fn allowed(module: &[&str]) -> Option<Vec<String>> {
    let path = module.join("::");
    LAYERS.iter().find_map(|(layer, below)| {
        let own = match layer.strip_suffix("::*") {
            None => is_below(&path, layer).then(|| layer.to_string())?,
            Some(parent) => {
                // A folder of its own; `slice` and the like belong to the parent.
                let child = *module.get(1).filter(|_| module[0] == parent)?;
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(parent).join(child);
                folder.is_dir().then(|| format!("{parent}::{child}"))?
            }
        };
        let own = (!below.iter().any(|path| is_below(path, &own))).then_some(own);
        Some(below.iter().map(|path| path.to_string()).chain(own).collect())
    })
}

#[test]
fn arrows_go_down_only() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let module = source.module();
        if module.is_empty() {
            continue;
        }
        let Some(allowed) = allowed(&module) else {
            wrong.push(format!("src/{} belongs to no layer: add a row to LAYERS", source.path));
            continue;
        };
        for (line, path) in references(&source) {
            seen += 1;
            if !allowed.iter().any(|below| is_below(&path, below)) {
                wrong.push(format!("src/{}:{line} names crate::{path}", source.path));
            }
        }
    }
    assert!(seen > 150, "only {seen} paths were found: the sources are not understood");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reserved_words_stand_only_where_they_belong() {
    let mut wrong = Vec::new();
    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources() {
        for (word, homes) in RESERVED {
            let at_home = homes
                .iter()
                .any(|home| source.path == *home || home.ends_with('/') && source.path.starts_with(home));
            for at in places(&source.code, word) {
                *hits.entry(word).or_default() += 1;
                if !at_home {
                    wrong.push(format!("src/{}:{} has {word}", source.path, line_of(&source.code, at)));
                }
            }
        }
    }
    for word in ["env::var", "extern \"C\"", "libc::_exit", "allow(unsafe_code)"] {
        assert!(hits.contains_key(word), "{word} was not found at all: the sources are not understood");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Names of transports in code and in texts, but not types of sockets.
fn names_a_transport(line: &str) -> bool {
    let lower = line.to_lowercase();
    ["rdma", "tcp"].iter().any(|name| {
        lower.match_indices(name).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let socket = ["Stream", "Listener", "Keepalive"].iter().any(|kind| after.starts_with(kind));
            let variable = before.ends_with("MC_") || before.ends_with("MC_USE_");
            let inside = before.ends_with(|c: char| c.is_ascii_lowercase())
                && line[at..].starts_with(char::is_lowercase);
            !socket && !variable && !inside
        })
    })
}

#[test]
fn no_transport_is_named_outside_its_folder_and_the_tables() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        let home = NAMERS.iter().find(|(place, _)| {
            source.path == *place || place.ends_with('/') && source.path.starts_with(place)
        });
        // Texts count, comments and test code do not.
        let code: Vec<&str> = source.code.lines().collect();
        for (index, line) in source.raw.lines().enumerate() {
            let line = line.split("//").next().unwrap_or(line);
            if code.get(index).is_some_and(|code| !code.trim().is_empty()) && names_a_transport(line) {
                match home {
                    Some((place, _)) => drop(used.insert(*place)),
                    None => wrong.push(format!("src/{}:{}: {}", source.path, index + 1, line.trim())),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unused: Vec<_> = NAMERS.iter().filter(|(place, _)| !used.contains(place)).collect();
    assert!(unused.is_empty(), "these name no transport, take them off the list: {unused:?}");
    assert!(
        names_a_transport("let x = Rdma::new()")
            && names_a_transport("\"tcp\"")
            && names_a_transport("tcp_port")
    );
    assert!(
        !names_a_transport("TcpStream::connect")
            && !names_a_transport("MC_TCP_X")
            && !names_a_transport("xtcp")
    );
}

/// `unsafe` exports of `ffi` have the header's text as documentation; `ffi/mod.rs` states their callers' duties.
fn is_export(code: &str, at: usize) -> bool {
    code[at..].starts_with("unsafe extern \"C\" fn") && code[..at].trim_end().ends_with("#[no_mangle]\npub")
}

#[test]
fn every_unsafe_has_a_reason() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in sources() {
        let raw: Vec<&str> = source.raw.lines().collect();
        for at in places(&source.code, "unsafe") {
            let after = &source.code[at + "unsafe".len()..];
            if after.starts_with(is_word) || is_export(&source.code, at) {
                continue;
            }
            seen += 1;
            let line = line_of(&source.code, at);
            let above = &raw[line.saturating_sub(REASON_LINES + 1)..line - 1];
            let explained = match after.trim_start() {
                block if block.starts_with('{') || block.starts_with("impl") => {
                    above.iter().any(|text| text.contains("// SAFETY:"))
                }
                // A function: its documentation has the section.
                _ => {
                    let docs = raw[..line - 1].iter().rev();
                    let mut docs = docs
                        .map(|text| text.trim())
                        .take_while(|t| t.starts_with("//") || t.starts_with('#'));
                    docs.any(|text| text.contains("# Safety"))
                }
            };
            if !explained {
                wrong.push(format!("src/{}:{line}: {}", source.path, raw[line - 1].trim()));
            }
        }
    }
    assert!(seen > 50, "only {seen} were found: the sources are not understood");
    assert!(wrong.is_empty(), "without SAFETY comment or # Safety section:\n{}", wrong.join("\n"));
}

#[test]
fn files_stay_short() {
    let lengths = sources().into_iter().map(|source| (source.raw.lines().count(), source.path));
    let long: Vec<_> = lengths.filter(|(lines, _)| *lines > MAX_LINES).collect();
    assert!(long.is_empty(), "longer than {MAX_LINES} lines: {long:?}");
}

#[test]
fn the_reader_of_sources_sees_code_only() {
    let text = concat!(
        "use crate::a::{b, c::{self, d}}; // crate::comment\n",
        "/* crate::block */ let s = \"crate::text \\\" still\"; let c = '\"'; let q = '\\''; fn f<'a>() {}\n",
        "let r = r#\"crate::raw \"# ; extern \"C\" fn g() { super::super::h::<u8>(); self::i() }\n",
        "#[cfg(test)]\nmod tests { use crate::test; fn x() {} }\n#[cfg(test)]\nmod more;\nfn last() {}\n",
    );
    let (code, modules) = without_tests(&bare(text));
    assert_eq!(modules, ["more"]);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(code.contains("extern \"C\"") && code.contains("fn last()"), "{code}");
    let source = Source { path: "x/y/z.rs".into(), raw: text.into(), code };
    let mut paths: Vec<String> = references(&source).into_iter().map(|(_, path)| path).collect();
    paths.sort();
    assert_eq!(paths, ["a::b", "a::c", "a::c::d", "x::h", "x::y::z::i"]);
}

#[test]
fn transports_do_not_know_each_other_nor_what_is_above() {
    let below = allowed(&["transport", "tcp", "lane"]).unwrap();
    let may = |path: &str| below.iter().any(|folder| is_below(path, folder));
    assert!(may("transport::tcp::wire::Header") && may("transport::slice::Op") && may("memory::Region"));
    assert!(!allowed(&["transport", "slice"])
        .unwrap()
        .iter()
        .any(|folder| is_below("transport::tcp::Tcp", folder)));
    for path in [
        "transport::local::copy",
        "transport",
        "transport::table",
        "engine",
        "metadata::Store",
        "handshake",
        "ffi",
    ] {
        assert!(!may(path), "{path}");
    }
}
