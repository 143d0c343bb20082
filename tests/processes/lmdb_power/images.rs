//! What a disk may hold when the power fails at some moment of a log: everything that was waited
//! for, and of what was written since then any part. A page of the file is written as a whole, in
//! any state that it had since it was last waited for, and pages in any order: that is what the
//! kernel's page cache and a disk with a cache of its own may do between them.

use std::collections::{BTreeMap, HashMap};

use super::shim::{Event, File};
use crate::common::Rng;

const PAGE: usize = 4096;

/// A write to one page: when, where in it, what.
type Change = (usize, usize, Vec<u8>);

pub struct Disk {
    durable: Vec<u8>,
    /// By page, the oldest first.
    pending: BTreeMap<usize, Vec<Change>>,
    /// When each thread began to wait.
    waiting: HashMap<u64, usize>,
}

impl Disk {
    pub fn new(durable: Vec<u8>) -> Disk {
        Disk { durable, pending: BTreeMap::new(), waiting: HashMap::new() }
    }

    pub fn see(&mut self, number: usize, event: &Event) {
        match event {
            Event::Write { offset, bytes } => {
                let (mut offset, mut rest) = (*offset, &bytes[..]);
                while !rest.is_empty() {
                    let (part, after) = rest.split_at(rest.len().min(PAGE - offset % PAGE));
                    self.pending.entry(offset / PAGE).or_default().push((number, offset % PAGE, part.to_vec()));
                    (offset, rest) = (offset + part.len(), after);
                }
            }
            Event::Wait(File::Data, thread) => drop(self.waiting.insert(*thread, number)),
            Event::Waited(File::Data, thread) => {
                let begun = self.waiting.remove(thread).unwrap();
                for (page, changes) in &mut self.pending {
                    let done = changes.iter().take_while(|change| change.0 < begun).count();
                    changes.drain(..done).for_each(|change| apply(&mut self.durable, *page, &change));
                }
                self.pending.retain(|_, changes| !changes.is_empty());
            }
            Event::Wait(..) | Event::Waited(..) | Event::Note(_) | Event::Directory(_) | Event::Forgotten => {}
        }
    }

    /// One of the states in which it may be found, and how many pages of it are in the balance.
    pub fn image(&self, rng: &mut Rng) -> (Vec<u8>, usize) {
        let mut image = self.durable.clone();
        for (page, changes) in &self.pending {
            let done = rng.below(changes.len() + 1);
            changes[..done].iter().for_each(|change| apply(&mut image, *page, change));
        }
        (image, self.pending.len())
    }
}

fn apply(file: &mut Vec<u8>, page: usize, (_, at, bytes): &Change) {
    let from = page * PAGE + at;
    if file.len() < from + bytes.len() {
        file.resize(from + bytes.len(), 0);
    }
    file[from..from + bytes.len()].copy_from_slice(bytes);
}
