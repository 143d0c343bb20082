//! The direction of imports: no module cycle in the library and in the NIF, and no import against
//! the layers. (bindings/python/tests/test_layers.py looks at the Python package.) A failure prints
//! each cycle, with the files and paths that close it.

mod graph;
mod rust;

use std::path::{Path, PathBuf};

use graph::Graph;

/// The modules of the library's top level. A module imports only from modules that come after it.
const LAYERS: [&str; 12] =
    ["capi", "global", "store", "open", "engine", "stats", "url", "session", "crypto", "sync", "os", "error"];

/// Imports that the order above does not forbid, and that must not be: modules under the first name
/// do not import from modules under the second one.
const FORBIDDEN: [(&str, &str); 8] = [
    ("engine::memory", "engine::lmdb"),
    ("engine::memory", "engine::redis"),
    ("engine::lmdb", "engine::memory"),
    ("engine::lmdb", "engine::redis"),
    ("engine::redis", "engine::memory"),
    ("engine::redis", "engine::lmdb"),
    ("engine::redis::client", "session"),
    ("engine::redis::client", "crypto"),
];

/// Modules under these have cycles inside them that are not untangled yet. A test fails if one has
/// none any more.
const KNOWN: [&str; 0] = [];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The cycles of a graph, but for those inside modules that are listed as known.
fn unknown_cycles(graph: &Graph, known: &[&str]) -> String {
    let is_known = |cycle: &&Vec<String>| known.iter().any(|root| cycle.iter().all(|module| is_under(module, root)));
    graph.cycles().iter().filter(|cycle| !is_known(cycle)).map(|cycle| graph.describe(cycle)).collect()
}

fn is_under(module: &str, root: &str) -> bool {
    module.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Imports from a module that comes before the importing one, or that are forbidden one by one.
fn wrong_directions(graph: &Graph, layers: &[&str], forbidden: &[(&str, &str)]) -> Vec<String> {
    let rank = |module: &str| layers.iter().position(|layer| is_under(module, layer));
    let is_wrong = |from: &str, to: &str| {
        let is_up = rank(from).is_some_and(|from| rank(to).is_some_and(|to| to < from));
        is_up || forbidden.iter().any(|(under, imported)| is_under(from, under) && is_under(to, imported))
    };
    graph.edges().filter(|edge| is_wrong(&edge.from, &edge.to)).map(ToString::to_string).collect()
}

#[test]
fn library_has_no_module_cycle() {
    let graph = rust::imports(&root("src"));
    assert!(graph.modules().count() > 50, "the modules of src are found");
    let cycles = unknown_cycles(&graph, &KNOWN);
    assert!(cycles.is_empty(), "cycles of modules in src:\n{cycles}");
}

#[test]
fn known_cycles_still_exist() {
    let cycles = rust::imports(&root("src")).cycles();
    for known in KNOWN {
        let has_cycle = cycles.iter().any(|cycle| cycle.iter().all(|module| is_under(module, known)));
        assert!(has_cycle, "{known} has no cycle any more: remove it from KNOWN");
    }
}

#[test]
fn library_imports_follow_layers() {
    let graph = rust::imports(&root("src"));
    for module in graph.modules().filter(|module| !module.is_empty()) {
        assert!(LAYERS.iter().any(|layer| is_under(module, layer)), "{module} is in none of LAYERS");
    }
    let wrong = wrong_directions(&graph, &LAYERS, &FORBIDDEN);
    assert!(wrong.is_empty(), "imports against the layers:\n{}", wrong.join("\n"));
}

/// Waiting inside parking_lot is not safe in a forked child. Its locks are tried in one place only.
#[test]
fn parking_lot_is_used_in_one_file() {
    fn files_with(needle: &str, folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_with(needle, &path, found);
            } else if std::fs::read_to_string(&path).is_ok_and(|text| text.contains(needle)) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    files_with(concat!("parking_lot", "::"), &root("src"), &mut found);
    assert_eq!(found, [root("src/sync/backoff_mutex.rs")]);
}

#[test]
fn nif_has_no_module_cycle() {
    let graph = rust::imports(&root("bindings/elixir/native/sss_nif/src"));
    assert!(graph.modules().count() > 2, "the modules of the NIF are found");
    let cycles = unknown_cycles(&graph, &[]);
    assert!(cycles.is_empty(), "cycles of modules in the NIF:\n{cycles}");
}

/// The imports of made-up files.
fn made_up(files: &[(&str, &str)]) -> Graph {
    rust::imports_of(files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect())
}

#[test]
fn cycle_of_three_is_found() {
    let graph = made_up(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; use crate::d::D;"),
        ("b/mod.rs", "pub mod inner; fn f() { let _ = inner::C::new(super::d::D); }"),
        ("b/inner.rs", "use crate::{c::{X, Y as Z}, d};"),
        ("c.rs", "fn f() -> bool { matches!(1, crate::a::LIMIT) }"),
        ("d.rs", "// use crate::a::A;\nconst TEXT: &str = \"crate::a::A\";"),
    ]);
    assert_eq!(graph.cycles(), [["a", "b", "b::inner", "c"]]);
    let text = unknown_cycles(&graph, &[]);
    for line in ["a.rs: crate::b::B", "b/mod.rs: inner::C", "b/inner.rs: crate::c::X", "c.rs: crate::a::LIMIT"] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(unknown_cycles(&graph, &["b"]), text, "the cycle is not inside of b");
}

#[test]
fn reexports_lead_to_definition() {
    let graph = made_up(&[
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod x; mod y; pub use x::X; pub use self::y::*;"),
        ("a/x.rs", "use crate::b::B;"),
        ("a/y.rs", "use super::X;"),
        ("b.rs", "use crate::a::Unknown;"),
    ]);
    let edges: Vec<(&str, &str)> = graph.edges().map(|edge| (&*edge.from, &*edge.to)).collect();
    assert!(edges.contains(&("a::y", "a::x")), "{edges:?}");
    assert!(!edges.contains(&("a::y", "a")), "{edges:?}");
    assert_eq!(graph.cycles(), [["a", "a::x", "a::y", "b"]]);
}

#[test]
fn tests_and_visibility_are_no_imports() {
    let graph = made_up(&[
        ("lib.rs", "mod a; mod b;"),
        (
            "a.rs",
            "pub(in crate::b) struct A; #[cfg(test)] use crate::b::B; #[cfg(all(test, unix))] mod tests { use crate::b::C; }",
        ),
        ("b.rs", "#[cfg(test)] mod fixture; #[cfg(not(test))] use crate::a::A; pub(super) fn f() {}"),
        ("b/fixture.rs", "use crate::a::A;"),
    ]);
    let edges: Vec<String> = graph.edges().map(ToString::to_string).collect();
    assert_eq!(edges, ["b.rs: crate::a::A"]);
}

#[test]
fn forbidden_direction_is_found() {
    let graph = made_up(&[
        ("lib.rs", "mod high; mod low;"),
        ("high.rs", "use crate::low::one::One;"),
        ("low/mod.rs", "mod one; mod two;"),
        ("low/one.rs", "use crate::high::High;"),
        ("low/two.rs", "use super::one::One;"),
    ]);
    let wrong = wrong_directions(&graph, &["high", "low"], &[("low::two", "low::one")]);
    assert_eq!(wrong, ["low/one.rs: crate::high::High", "low/two.rs: super::one::One"]);
}
