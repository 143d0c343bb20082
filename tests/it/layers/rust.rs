//! The imports between the modules of a crate: `use` and every other path in the code, macros
//! included. Code under `cfg(test)` is left out. A name that a module re-exports leads to the
//! module that defines it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::graph::Graph;

/// A path or a module, by its parts.
type Names = Vec<String>;

pub fn imports(folder: &Path) -> Graph {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            // A program beside the library is a crate of its own.
            if entry.is_dir() && entry.file_name().unwrap() != "bin" {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push((entry.strip_prefix(folder).unwrap().to_owned(), fs::read_to_string(&entry).unwrap()));
            }
        }
    }
    imports_of(files)
}

/// Of files with paths from the folder of `lib.rs`.
pub fn imports_of(mut files: Vec<(PathBuf, String)>) -> Graph {
    files.sort();
    let mut modules = BTreeMap::new();
    let mut of_tests = BTreeSet::new();
    for (file, text) in &files {
        let path = module_of(file);
        let mut module = Module { file: file.to_str().unwrap().to_owned(), ..Module::default() };
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Scan { module: &mut module, of_tests: &mut of_tests }.items(&path, tokens);
        modules.insert(path, module);
    }
    modules.retain(|path, _| (0..=path.len()).all(|len| !of_tests.contains(&path[..len])));
    let krate = Crate { modules };
    let mut graph = Graph::default();
    for (path, module) in &krate.modules {
        graph.add_module(&path.join("::"));
        for (base, used) in &module.paths {
            if let Some(to) = krate.definition(base, used, 0) {
                graph.add_import(&path.join("::"), &to.join("::"), &module.file, &used.join("::"));
            }
        }
    }
    graph
}

fn module_of(file: &Path) -> Names {
    let mut names: Names = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if names.last().is_some_and(|last| last == "mod" || last == "lib") {
        names.pop();
    }
    names
}

/// A file.
#[derive(Default)]
struct Module {
    file: String,
    /// Each path, and the module that it is written in: the file's, or one in the file.
    paths: Vec<(Names, Names)>,
    /// What `use` gives a name to.
    names: BTreeMap<String, (Names, Names)>,
    children: BTreeSet<String>,
}

struct Crate {
    modules: BTreeMap<Names, Module>,
}

impl Crate {
    /// The module with a file of its own that defines what `used` means in `base`; `None`: it is of
    /// another crate, or local.
    fn definition(&self, base: &[String], used: &[String], depth: usize) -> Option<Names> {
        let mut at = base.to_vec();
        let mut rest = used;
        match used.first()?.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => {
                at.pop();
            }
            name => {
                // The names of the file are known in its inline modules too, for simplicity.
                let module = &self.modules[self.file_of(base)];
                if !module.children.contains(name) {
                    let (from, path) = module.names.get(name)?;
                    // A name that stands for itself, or for a name of another crate.
                    if depth > 20 || path[..] == used[..1] {
                        return None;
                    }
                    let whole: Names = path.iter().chain(&used[1..]).cloned().collect();
                    return self.definition(from, &whole, depth + 1);
                }
                at = self.file_of(base).to_vec();
                at.push(name.to_owned());
            }
        }
        rest = &rest[1..];
        while let [name, more @ ..] = rest {
            let module = self.modules.get(&at);
            if name == "super" {
                at.pop();
            } else if module.is_none_or(|module| module.children.contains(name)) {
                at.push(name.clone());
            } else if let Some((from, path)) = module.and_then(|module| module.names.get(name))
                && depth < 20
            {
                let whole: Names = path.iter().chain(more).cloned().collect();
                if let Some(found) = self.definition(from, &whole, depth + 1) {
                    return Some(found);
                }
                break;
            } else {
                break;
            }
            rest = more;
        }
        Some(self.file_of(&at).to_vec())
    }

    /// The innermost module around this one that has a file.
    fn file_of<'a>(&self, module: &'a [String]) -> &'a [String] {
        (0..=module.len()).rev().map(|len| &module[..len]).find(|it| self.modules.contains_key(*it)).unwrap()
    }
}

/// Reads the tokens of a file.
struct Scan<'a> {
    module: &'a mut Module,
    /// Modules that only tests have.
    of_tests: &'a mut BTreeSet<Names>,
}

impl Scan<'_> {
    fn items(&mut self, base: &[String], tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut i = 0;
        while i < trees.len() {
            if is_punct(&trees[i], '#') && trees.get(i + 1).is_some_and(is_cfg_test) {
                let end = i + 2 + item_len(&trees[i + 2..]);
                if let Some(name) = trees[i..end].windows(2).find_map(module_name) {
                    self.of_tests.insert([base, &[name]].concat());
                }
                i = end;
            } else if ident(&trees[i]).as_deref() == Some("use") {
                let end = i + trees[i..].iter().position(|tree| is_punct(tree, ';')).unwrap();
                self.used(base, &mut Vec::new(), &trees[i + 1..end]);
                i = end;
            } else if let Some(name) = trees.get(i..i + 2).and_then(module_name) {
                if let Some(TokenTree::Group(body)) = trees.get(i + 2) {
                    self.items(&[base, &[name]].concat(), body.stream());
                    i += 3;
                } else {
                    self.module.children.insert(name);
                    i += 2;
                }
            } else if ident(&trees[i]).as_deref() == Some("pub")
                && matches!(trees.get(i + 1), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
            {
                i += 2;
            } else if ident(&trees[i]).is_some()
                && !(i > 0 && (is_punct(&trees[i - 1], '.') || is_separator(&trees, i)))
            {
                let (path, len) = path(&trees[i..]);
                if path.len() > 1 {
                    self.module.paths.push((base.to_vec(), path));
                }
                i += len;
            } else {
                if let TokenTree::Group(group) = &trees[i] {
                    self.items(base, group.stream());
                }
                i += 1;
            }
        }
    }

    /// A tree of `use`, after the path before it.
    fn used(&mut self, base: &[String], before: &mut Names, trees: &[TokenTree]) {
        let depth = before.len();
        let mut alias = None;
        for (i, tree) in trees.iter().enumerate() {
            match tree {
                TokenTree::Ident(_) if i > 0 && ident(&trees[i - 1]).as_deref() == Some("as") => alias = ident(tree),
                TokenTree::Ident(name) if name != "as" => before.push(name.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in inner.split(|tree| is_punct(tree, ',')).filter(|part| !part.is_empty()) {
                        self.used(base, before, part);
                    }
                    before.truncate(depth);
                    return;
                }
                _ => {}
            }
        }
        if before.len() > 1 && before.last().is_some_and(|last| last == "self") {
            before.pop();
        }
        let is_glob = trees.last().is_some_and(|tree| is_punct(tree, '*'));
        if let Some(name) = alias.or_else(|| before.last().cloned()).filter(|_| !is_glob) {
            self.module.names.insert(name, (base.to_vec(), before.clone()));
        }
        self.module.paths.push((base.to_vec(), before.clone()));
        before.truncate(depth);
    }
}

fn ident(tree: &TokenTree) -> Option<String> {
    if let TokenTree::Ident(ident) = tree { Some(ident.to_string()) } else { None }
}

fn is_punct(tree: &TokenTree, punct: char) -> bool {
    matches!(tree, TokenTree::Punct(it) if it.as_char() == punct)
}

/// Whether `::` stands before this place.
fn is_separator(trees: &[TokenTree], i: usize) -> bool {
    i > 1 && is_punct(&trees[i - 1], ':') && is_punct(&trees[i - 2], ':')
}

/// The name of `mod NAME`.
fn module_name(trees: &[TokenTree]) -> Option<String> {
    ident(&trees[0]).filter(|word| word == "mod").and_then(|_| ident(&trees[1]))
}

/// Whether this is the bracket of `#[cfg(test)]` or of a condition that needs `test`.
fn is_cfg_test(tree: &TokenTree) -> bool {
    let text = tree.to_string().replace(' ', "");
    text.starts_with("[cfg(")
        && text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "test")
        && !text.contains("not(test)")
}

/// How long the item, field or statement is at whose beginning (after an attribute) these tokens
/// are.
fn item_len(trees: &[TokenTree]) -> usize {
    const ITEMS: [&str; 12] =
        ["pub", "fn", "mod", "use", "impl", "struct", "enum", "const", "static", "type", "unsafe", "let"];
    let first = trees.iter().find_map(ident).unwrap_or_default();
    let ends_at_comma = !ITEMS.contains(&first.as_str());
    let is_end = |tree: &TokenTree| {
        is_punct(tree, ';')
            || ends_at_comma && is_punct(tree, ',')
            || matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace)
    };
    trees.iter().position(is_end).map_or(trees.len(), |at| at + 1)
}

/// The path that begins here, and how many tokens it has.
fn path(trees: &[TokenTree]) -> (Names, usize) {
    let mut names = vec![ident(&trees[0]).unwrap()];
    let mut len = 1;
    while let [colon, second, next, ..] = &trees[len..]
        && is_punct(colon, ':')
        && is_punct(second, ':')
        && let Some(name) = ident(next)
    {
        names.push(name);
        len += 3;
    }
    (names, len)
}
