//! Modules, the imports between them, and the cycles among these.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// An import: the first one that a module has from another one.
pub struct Edge {
    pub from: String,
    pub to: String,
    /// The file, and the path in it.
    file: String,
    path: String,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.path)
    }
}

#[derive(Default)]
pub struct Graph {
    modules: BTreeSet<String>,
    edges: BTreeMap<(String, String), Edge>,
}

impl Graph {
    pub fn add_module(&mut self, module: &str) {
        self.modules.insert(module.to_owned());
    }

    pub fn add_import(&mut self, from: &str, to: &str, file: &str, path: &str) {
        if from != to {
            let edge =
                || Edge { from: from.to_owned(), to: to.to_owned(), file: file.to_owned(), path: path.to_owned() };
            self.edges.entry((from.to_owned(), to.to_owned())).or_insert_with(edge);
        }
    }

    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(String::as_str)
    }

    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        self.edges.values()
    }

    /// Sets of modules that all reach one another, sorted.
    pub fn cycles(&self) -> Vec<Vec<String>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.modules().map(|module| (module, self.reached_from(module))).collect();
        let mut cycles: Vec<Vec<String>> = Vec::new();
        for module in self.modules().filter(|module| reached[module].contains(module)) {
            let is_peer = |other: &&str| reached[module].contains(other) && reached[other].contains(module);
            let cycle: Vec<String> = self.modules().filter(is_peer).map(str::to_owned).collect();
            if !cycles.contains(&cycle) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    /// The modules that imports lead to, in one step or more.
    fn reached_from<'a>(&'a self, module: &'a str) -> BTreeSet<&'a str> {
        let mut reached = BTreeSet::new();
        let mut next = vec![module];
        while let Some(from) = next.pop() {
            let to = self.edges.values().filter(|edge| edge.from == from).map(|edge| edge.to.as_str());
            next.extend(to.filter(|to| reached.insert(*to)));
        }
        reached
    }

    /// A line for the modules of a cycle, and one for each import between them.
    pub fn describe(&self, cycle: &[String]) -> String {
        let inside = self.edges().filter(|edge| cycle.contains(&edge.from) && cycle.contains(&edge.to));
        let lines: String = inside.map(|edge| format!("    {edge}\n")).collect();
        format!("  {}\n{lines}", cycle.join(", "))
    }
}
