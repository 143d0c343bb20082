//! The measurements: named numbers, one per line of a text file, so that the parts of the suite in
//! other languages can add theirs. A name begins with its row: `m1.sss_ns`.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::workload::{Middle, Outcome};

#[derive(Default)]
pub struct Facts {
    values: BTreeMap<String, f64>,
    file: Option<PathBuf>,
}

impl Facts {
    /// Facts that are also appended to `file` as they come.
    pub fn new(file: Option<PathBuf>) -> Facts {
        Facts { values: BTreeMap::new(), file }
    }

    pub fn read(&mut self, file: &Path) -> io::Result<()> {
        for line in std::fs::read_to_string(file)?.lines() {
            match line.split_once('\t').map(|(name, value)| (name, value.parse())) {
                Some((name, Ok(value))) => self.values.insert(name.to_owned(), value),
                _ => return Err(io::Error::other(format!("{}: not a fact: {line}", file.display()))),
            };
        }
        Ok(())
    }

    pub fn set(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_owned(), value);
        let Some(file) = &self.file else { return };
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(file)
            .and_then(|mut file| file.write_all(format!("{name}\t{value}\n").as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot write to {}: {error}", file.display()));
    }

    /// A median and its range: `name`, `name.min`, `name.max`.
    pub fn set_middle(&mut self, name: &str, middle: Middle) {
        self.set(name, middle.median);
        self.set(&format!("{name}.min"), middle.min);
        self.set(&format!("{name}.max"), middle.max);
    }

    /// `row.NAME_UNIT` for all that ran, and `row.ratio.NAME` of libsss to each of the others.
    pub fn set_outcome(&mut self, row: &str, unit: &str, outcome: &Outcome) {
        for name in outcome.names() {
            self.set_middle(&format!("{row}.{name}_{unit}"), outcome.middle(name));
            if *name != "sss" {
                self.set_middle(&format!("{row}.ratio.{name}"), outcome.ratio("sss", name));
            }
        }
    }

    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    pub fn all(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }
}
