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
            "memory::PeerAccess",
            "memory::Range",
            "observe::sink",
            "runtime::headroom",
            "runtime::per_process",
            "runtime::signals",
            "transport::report",
        ],
    ),
    // What the program `mte` uses beside the C functions.
    (
        "tools",
        &[
            "cluster_key",
            "tls",
            "config",
            "engine",
            "error",
            "handshake::Client",
            "host_port",
            "memory::Range",
            "metadata",
            "observe::log",
            "observe::page",
            "runtime::control",
            "runtime::fork",
            "segment_desc",
            "transport::table",
        ],
    ),
    (
        "engine",
        &[
            "cluster_key",
            "tls",
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
            "transport::Seams",
            "transport::Takes",
            "transport::Transport",
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
    // Looks at a machine for an operator, through what an engine there would look at.
    (
        "doctor",
        &[
            "cluster_key",
            "tls",
            "transport::rdma::gid_table",
            "transport::rdma::verbs",
            "metadata",
            "topology",
            "runtime",
            "config",
            "error",
            "host_port",
        ],
    ),
    // The one place that names every transport.
    ("transport::table", &["transport", "config", "error"]),
    (
        "transport::*",
        &[
            "cluster_key",
            "tls",
            "memory",
            "runtime",
            "observe",
            "config",
            "error",
            "json",
            "host_port",
            "segment_desc",
            // NIC choice is made per slice, and messages are plain data.
            "topology",
            "handshake::ConnectionMessage",
            "handshake::Notification",
            "transport::counters",
            "transport::host",
            "transport::incarnation",
            "transport::links",
            "transport::meter",
            "transport::offer",
            "transport::protocol",
            "transport::ranges",
            "transport::report",
            "transport::slice",
            "transport::Link",
            "transport::Seams",
            "transport::Takes",
            "transport::Transport",
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
            "handshake::Notification",
            "transport::host",
            "transport::incarnation",
            "transport::links",
            "transport::meter",
            "transport::offer",
            "transport::protocol",
            "transport::ranges",
            "transport::report",
            "transport::slice",
            "transport::Link",
            "transport::Seams",
            "transport::Takes",
            "transport::Transport",
        ],
    ),
    (
        "metadata",
        &["handshake", "segment_desc", "json", "host_port", "config", "error", "runtime", "observe", "tls"],
    ),
    ("handshake", &["cluster_key", "tls", "json", "host_port", "config", "error", "runtime", "observe"]),
    ("cluster_key", &["config", "error", "runtime"]),
    ("tls", &["config", "error", "runtime"]),
    ("topology", &["json", "error", "runtime"]),
    ("memory", &["error", "runtime"]),
    ("segment_desc", &["json", "error", "runtime"]),
    ("observe", &["runtime", "config", "error"]),
    ("runtime", &["config", "error"]),
    ("json", &["error", "runtime"]),
    ("host_port", &["error", "runtime", "observe"]),
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
            "transport/tcp/iov.rs",
            "transport/tcp/sock.rs",
            "transport/shm/kernel.rs",
            "transport/posix_shm/kernel.rs",
            "memory/shared.rs",
            "transport/rdma/verbs/",
            "transport/local/",
            "transport/rdma/memory.rs",
            "runtime/clock.rs",
            "runtime/descriptors.rs",
            "runtime/epoll.rs",
            "runtime/fork.rs",
            "runtime/interfaces.rs",
            "runtime/line.rs",
            "runtime/per_process.rs",
            "runtime/poll.rs",
            "runtime/thread.rs",
            "runtime/signals.rs",
            "runtime/outstanding.rs",
            "runtime/tracked.rs",
            "runtime/wakeup.rs",
            "topology/pages.rs",
        ],
    ),
];

/// Where a transport's name may stand beside its own folder: in tables, in what C programs and settings call so, and in
/// the words of upstream. A place ending in `/` is a folder.
const NAMERS: &[(&str, &str)] = &[
    ("transport/rdma/", "its own"),
    ("transport/shm/", "its own"),
    ("transport/tcp/", "its own"),
    ("transport/posix_shm/listening.rs", "the kernel's tables of sockets are called so"),
    ("transport/table.rs", "the table of transports"),
    ("transport/mod.rs", "the folders are declared there"),
    ("config.rs", "the settings of each"),
    ("config/unused.rs", "settings of upstream that name theirs"),
    ("error/codes.rs", "what upstream's codes mean"),
    ("ffi/types.rs", "upstream's structs"),
    ("doctor/", "what an operator is told of each"),
    ("engine/reports.rs", "upstream's words for an empty list"),
    ("topology/discover.rs", "the devices of the kernel's class are called so"),
    ("runtime/ports.rs", "the protocol of a socket"),
    ("runtime/sockets.rs", "the protocol of a socket"),
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

/// Files that name each other in a circle, and why they may. A circle that is not listed fails the test, as does a
/// list that has a file which left its circle.
const CIRCLES: &[(&str, &[&str])] = &[
    (
        "one type, Engine, with a file for each subject",
        &[
            "engine/creation.rs",
            "engine/host.rs",
            "engine/install.rs",
            "engine/membership.rs",
            "engine/mod.rs",
            "engine/peers.rs",
            "engine/publish.rs",
            "engine/regions.rs",
            "engine/reports.rs",
            "engine/segments.rs",
            "engine/shared.rs",
            "engine/status.rs",
            "engine/submit/plan.rs",
            "engine/submit.rs",
            "engine/topology.rs",
            "engine/way.rs",
            "engine/whole.rs",
        ],
    ),
    (
        "one type, Batch, with files of their own for what submit calls put there and for who waits",
        &["engine/batch/reservation.rs", "engine/batch/waiters.rs", "engine/batch.rs"],
    ),
    (
        "one type, Inbound, with a file of its own for how a peer gets in",
        &["transport/tcp/inbound/entry.rs", "transport/tcp/inbound.rs"],
    ),
    (
        "one type, Reactor, with a file of its own for its listener",
        &["transport/tcp/reactor/listening.rs", "transport/tcp/reactor.rs"],
    ),
    (
        "one type, Slice with its tasks, with files of their own for the ends of many and for tasks that have ended",
        &["transport/slice/ended.rs", "transport/slice/ends.rs", "transport/slice.rs"],
    ),
    (
        "one type, Segment, with a file of its own for what comes from notifications",
        &["engine/segment/hear.rs", "engine/segment.rs"],
    ),
    ("one type, Etcd, with a file of its own for its watch", &["metadata/etcd/watch.rs", "metadata/etcd.rs"]),
    (
        "one type, Keyed, with a file of its own for the keys that it claimed",
        &["metadata/keyed/claims.rs", "metadata/keyed.rs"],
    ),
    (
        "one type, Inbound, with files of their own for what it pulls and for its ring",
        &["transport/shm/inbound/pulling.rs", "transport/shm/inbound/ringing.rs", "transport/shm/inbound.rs"],
    ),
    (
        "one type, Lane, with files of their own for its READs, for its ring and for how requests end",
        &[
            "transport/shm/lane/ends.rs",
            "transport/shm/lane/reads.rs",
            "transport/shm/lane/ringing.rs",
            "transport/shm/lane.rs",
        ],
    ),
    (
        "one type, ShmLink, with a file for each subject",
        &[
            "transport/shm/link/connecting.rs",
            "transport/shm/link/pulling.rs",
            "transport/shm/link/watched.rs",
            "transport/shm/link.rs",
        ],
    ),
    (
        "a link has its lanes, and a lane that dies hands its requests back to its link",
        &["transport/tcp/lane.rs", "transport/tcp/link/several.rs", "transport/tcp/link.rs"],
    ),
];

/// Which file of `src` names which: `crate`, `super`, `self`, children and imported modules are resolved to the file
/// that defines the item, through re-exports. Not seen: methods called on values.
struct Names<'a> {
    sources: &'a [Source],
    /// Module path to the position in `sources`.
    modules: BTreeMap<String, usize>,
    /// Path of an import to what it stands for: children may use their parent's, everybody the public ones.
    exports: BTreeMap<String, String>,
}

impl<'a> Names<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let numbered = sources.iter().enumerate();
        let modules = numbered.map(|(number, source)| (source.module().join("::"), number)).collect();
        let mut names = Names { sources, modules, exports: BTreeMap::new() };
        let mut exports = BTreeMap::new();
        for source in sources {
            let module = source.module().join("::");
            exports
                .extend(names.imports(source).into_iter().map(|(name, path)| (join(&module, &name), path)));
        }
        names.exports = exports;
        names
    }

    /// The local name of each import of this crate's modules and items, and its path.
    fn imports(&self, source: &Source) -> Vec<(String, String)> {
        let module: Vec<String> = source.module().iter().map(|name| name.to_string()).collect();
        let mut imports = Vec::new();
        for at in places(&source.code, "use ") {
            let tree = source.code[at + 4..].split(';').next().unwrap();
            let first: String = tree.trim_start().chars().take_while(|c| is_word(*c)).collect();
            let (text, base) = match first.as_str() {
                "crate" => (tree.trim_start().strip_prefix("crate::").unwrap(), Vec::new()),
                "super" | "self" => (tree, module.clone()),
                child if self.modules.contains_key(&join(&module.join("::"), child)) => {
                    (tree, module.clone())
                }
                _ => continue,
            };
            let mut paths = Vec::new();
            expand(text, &base, &mut paths);
            for path in paths {
                let name = path.last().cloned().unwrap_or_default();
                imports.push((name, path.join("::")));
            }
        }
        imports
    }

    /// The file that defines what `path` leads to; `None` for a bare module, whose items are named elsewhere.
    fn home(&self, path: &str) -> Option<usize> {
        let mut path = path.to_string();
        // A chain of re-exports is short; a circle of them does not compile.
        for _ in 0..8 {
            let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
            let export = ends.into_iter().find_map(|end| Some((end, self.exports.get(&path[..end])?)));
            let Some((end, real)) = export else { break };
            path = format!("{real}{}", &path[end..]);
        }
        if self.modules.contains_key(&path) {
            return None;
        }
        let mut module = path.as_str();
        while let Some((parent, _)) = module.rsplit_once("::") {
            if let Some(found) = self.modules.get(parent) {
                return Some(*found);
            }
            module = parent;
        }
        self.modules.get("").copied()
    }

    /// Paths that `source` names.
    fn paths(&self, source: &Source) -> BTreeSet<String> {
        let mut paths: BTreeSet<String> = references(source).into_iter().map(|(_, path)| path).collect();
        let module = source.module().join("::");
        let is_child = |path: &str| path.rsplit_once("::").map_or("", |(parent, _)| parent) == module;
        let children = self.modules.keys().filter(|path| !path.is_empty() && is_child(path));
        let mut known: BTreeMap<String, String> =
            children.map(|path| (path.rsplit("::").next().unwrap().to_string(), path.clone())).collect();
        for (name, path) in self.imports(source) {
            if self.modules.contains_key(&path) {
                known.insert(name, path);
            } else {
                paths.insert(path);
            }
        }
        for (name, path) in known {
            let base: Vec<String> = path.split("::").map(String::from).collect();
            let word = format!("{name}::");
            for at in places(&source.code, &word).filter(|at| !source.code[..*at].ends_with("::")) {
                let mut found = Vec::new();
                expand(&source.code[at + word.len()..], &base, &mut found);
                paths.extend(found.into_iter().map(|path| path.join("::")));
            }
        }
        paths
    }

    /// For each file those that it names, itself left out.
    fn edges(&self) -> Vec<BTreeSet<usize>> {
        let one = |(number, source): (usize, &Source)| {
            let homes = self.paths(source).into_iter().filter_map(|path| self.home(&path));
            homes.filter(|home| *home != number).collect()
        };
        let mut edges: Vec<BTreeSet<usize>> = self.sources.iter().enumerate().map(one).collect();
        for (number, source) in self.sources.iter().enumerate() {
            // Whoever has a value of a type may call the methods that another file adds to it.
            for home in self.extends(source).into_iter().filter(|home| *home != number) {
                edges[home].insert(number);
            }
        }
        edges
    }

    /// The files whose types `source` adds methods to.
    fn extends(&self, source: &Source) -> BTreeSet<usize> {
        let module = source.module().join("::");
        let heads = source.code.lines().filter_map(|line| line.strip_prefix("impl ")?.strip_suffix(" {"));
        let types = heads.filter(|head| head.chars().all(is_word));
        types.filter_map(|name| self.home(&join(&module, name))).collect()
    }
}

fn join(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_string()
    } else {
        format!("{module}::{name}")
    }
}

/// The strongly connected components of more than one member, each sorted, in order.
fn circles(edges: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reached: Vec<BTreeSet<usize>> = (0..edges.len())
        .map(|from| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<usize> = edges[from].iter().copied().collect();
            while let Some(at) = next.pop() {
                if seen.insert(at) {
                    next.extend(&edges[at]);
                }
            }
            seen
        })
        .collect();
    let mut found = BTreeSet::new();
    for (from, seen) in reached.iter().enumerate() {
        let circle: Vec<usize> = seen.iter().copied().filter(|to| reached[*to].contains(&from)).collect();
        if circle.len() > 1 {
            found.insert(circle);
        }
    }
    found.into_iter().collect()
}

#[test]
fn files_name_each_other_in_no_circle_but_the_listed() {
    let sources = sources();
    let names = Names::of(&sources);
    let edges = names.edges();
    assert!(edges.iter().map(BTreeSet::len).sum::<usize>() > 300, "the sources are not understood");
    let mut wrong = Vec::new();
    let mut listed: BTreeSet<Vec<&str>> = CIRCLES.iter().map(|(_, files)| files.to_vec()).collect();
    for circle in circles(&edges) {
        let files: Vec<&str> = circle.iter().map(|number| sources[*number].path.as_str()).collect();
        if !listed.remove(&files) {
            let inside = |number: &usize| edges[*number].iter().filter(|to| circle.contains(to));
            let lines = circle.iter().map(|number| {
                let named: Vec<&str> = inside(number).map(|to| sources[*to].path.as_str()).collect();
                format!("  {} names {}", sources[*number].path, named.join(", "))
            });
            wrong.push(format!("a circle of {}:\n{}", files.len(), lines.collect::<Vec<_>>().join("\n")));
        }
    }
    wrong.extend(listed.iter().map(|files| format!("no circle (any more): {files:?}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn circles_are_found_through_parents_children_and_re_exports() {
    let source = |path: &str, code: &str| Source { path: path.into(), raw: String::new(), code: code.into() };
    let sources = [
        source("a/low.rs", "use super::Top;"),
        source(
            "a/mod.rs",
            "mod low; mod side; pub use side::{Side, more::Item}; struct Top; fn f() { low::g(); }",
        ),
        source("a/side.rs", "use super::low; fn f() { low::g(); }"),
        source("b.rs", "use crate::a::{self, Side}; fn f() -> a::Item { crate::a::low::g() }"),
        source("c.rs", "use crate::a; fn f(s: &dyn crate::d::T) {}"),
        source("d.rs", "fn f() { let c = crate::c::g(); }"),
        source("lib.rs", "mod a; mod b; mod c;"),
    ];
    let edges = Names::of(&sources).edges();
    let edges: Vec<Vec<usize>> = edges.iter().map(|to| to.iter().copied().collect()).collect();
    let expected: [&[usize]; 7] = [&[1], &[0, 2], &[0], &[0, 2], &[5], &[4], &[]];
    assert_eq!(edges, expected);
    let edges: Vec<BTreeSet<usize>> = edges.into_iter().map(|to| to.into_iter().collect()).collect();
    assert_eq!(circles(&edges), [vec![0, 1, 2], vec![4, 5]]);
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
