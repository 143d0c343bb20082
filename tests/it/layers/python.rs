//! The imports between the modules of a Python package, wherever they stand, those for type checkers included.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::graph::Graph;

pub fn imports(package: &Path) -> Graph {
    let mut files = Vec::new();
    let mut folders = vec![package.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "py") {
                files.push((entry.strip_prefix(package).unwrap().to_owned(), fs::read_to_string(&entry).unwrap()));
            }
        }
    }
    imports_of(package.file_name().unwrap().to_str().unwrap(), files)
}

/// Of files with paths from the package's folder. The module of `__init__.py` is the package itself: "".
pub fn imports_of(package: &str, mut files: Vec<(PathBuf, String)>) -> Graph {
    files.sort();
    let mut graph = Graph::default();
    let module_of = |file: &Path| {
        let module = file.with_extension("").to_str().unwrap().replace('/', "::");
        module.strip_suffix("__init__").map_or(module.clone(), |folder| folder.trim_end_matches("::").to_owned())
    };
    for (file, _) in &files {
        graph.add_module(&module_of(file));
    }
    let modules: Vec<String> = graph.modules().map(str::to_owned).collect();
    for (file, text) in &files {
        let folder = file.parent().unwrap().to_str().unwrap().replace('/', "::");
        for statement in statements(text) {
            for path in imported(&statement, package, &folder) {
                // What is imported may be a module, or something in it.
                let is_in = |module: &&String| super::is_under(&path, module) || module.is_empty();
                let to = modules.iter().filter(is_in).max_by_key(|module| module.len());
                graph.add_import(&module_of(file), to.unwrap(), file.to_str().unwrap(), statement.trim());
            }
        }
    }
    graph
}

/// The import statements, each on one line.
fn statements(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("from ") && !line.trim_start().starts_with("import ") {
            continue;
        }
        let mut statement = line.to_owned();
        while statement.contains('(') && !statement.contains(')') {
            statement.push_str(lines.next().expect("the end of an import"));
        }
        statements.push(statement);
    }
    statements
}

/// The paths from the package's root that a statement imports.
fn imported(statement: &str, package: &str, folder: &str) -> Vec<String> {
    let join = |parts: &[&str]| parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("::");
    let words = statement.trim();
    let Some((module, names)) = words.strip_prefix("from ").and_then(|rest| rest.split_once(" import ")) else {
        let names = words.trim_start_matches("import ").split(',').map(|name| name.trim().split(' ').next().unwrap());
        return names
            .filter_map(|name| name.strip_prefix(&format!("{package}.")))
            .map(|it| it.replace('.', "::"))
            .collect();
    };
    let module = module.trim();
    let base = if let Some(module) = module.strip_prefix(package) {
        module.trim_start_matches('.').replace('.', "::")
    } else if let Some(relative) = module.strip_prefix('.') {
        let ups = relative.len() - relative.trim_start_matches('.').len();
        let folders: Vec<&str> = folder.split("::").collect();
        join(&[
            &folders[..folders.len().saturating_sub(ups)].join("::"),
            &relative.trim_start_matches('.').replace('.', "::"),
        ])
    } else {
        return Vec::new();
    };
    let names =
        names.trim_matches(|c: char| "( )".contains(c)).split(',').map(|name| name.trim().split(' ').next().unwrap());
    names.filter(|name| !name.is_empty()).map(|name| join(&[&base, name])).collect()
}
