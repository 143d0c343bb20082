//! A process that writes and notes in the log what it is about to do and what was acknowledged, and
//! what its notes say of the sessions at some moment.

use std::{collections::BTreeMap, fs::OpenOptions, thread};

use sss::Store;

use super::shim;
use crate::common::{PLAIN, Rng};

const THREADS: u64 = 2;

/// A payload, by its number.
pub fn payload(number: u64) -> Vec<u8> {
    const SIZES: [usize; 5] = [1, 10, 100, 400, 1500];
    number.to_le_bytes().repeat(SIZES[number as usize % SIZES.len()])
}

/// The part: `URL LOG SEED STEPS`. Each thread has sessions of its own.
pub fn write(args: &[String]) {
    let [url, log, seed, steps] = args else { panic!("not the arguments of a writer: {args:?}") };
    let (seed, steps): (u64, u64) = (seed.parse().unwrap(), steps.parse().unwrap());
    let store = &Store::open(url).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).open(log).unwrap();
                let mut rng = Rng(seed ^ thread);
                let who = format!("{}-{thread}", std::process::id());
                let mut own: Vec<String> = Vec::new();
                for _ in 0..steps {
                    let number = rng.next() >> 1;
                    let at = rng.below(own.len().max(1));
                    match rng.below(10) {
                        0..4 if !own.is_empty() => {
                            shim::note(&mut log, &format!("{who} put {} {number}", own[at]));
                            store.put(&own[at], &payload(number), &PLAIN).unwrap();
                            shim::note(&mut log, &format!("{who} done {}", own[at]));
                        }
                        4..6 if own.len() > 3 => {
                            let sid = own.swap_remove(at);
                            shim::note(&mut log, &format!("{who} delete {sid} 0"));
                            store.delete(&sid).unwrap();
                            shim::note(&mut log, &format!("{who} done {sid}"));
                        }
                        _ => {
                            shim::note(&mut log, &format!("{who} create - {number}"));
                            let (sid, _) = store.create(&payload(number), &PLAIN).unwrap();
                            shim::note(&mut log, &format!("{who} done {}", sid.as_str()));
                            own.push(sid.as_str().to_owned());
                        }
                    }
                }
            });
        }
    });
}

/// The part: `URL LOG SEED STEPS`. Creates sessions and ends them all, again and again.
pub fn revoke(args: &[String]) {
    const SESSIONS: u64 = 150;
    let [url, log, seed, steps] = args else { panic!("not the arguments of a writer: {args:?}") };
    let store = Store::open(url).unwrap();
    let mut log = OpenOptions::new().append(true).open(log).unwrap();
    let mut rng = Rng(seed.parse().unwrap());
    for _ in 0..steps.parse::<u64>().unwrap() {
        for _ in 0..SESSIONS {
            let number = rng.next() >> 1;
            shim::note(&mut log, &format!("revoker create - {number}"));
            let (sid, _) = store.create(&payload(number), &PLAIN).unwrap();
            shim::note(&mut log, &format!("revoker done {}", sid.as_str()));
        }
        shim::note(&mut log, &format!("revoker delete {ALL} 0"));
        assert_eq!(store.revoke_all().unwrap(), SESSIONS);
        shim::note(&mut log, &format!("revoker done {ALL}"));
    }
}

/// In a note: all sessions.
const ALL: &str = "*";

/// A number, or nothing for a session that was deleted.
pub type Held = Option<u64>;

/// What all writers know at some moment.
#[derive(Default)]
pub struct Known {
    /// By id, what was acknowledged.
    pub sessions: BTreeMap<String, Held>,
    /// By writer, what is under way: the id (or "-") and what it makes of it.
    pub doing: BTreeMap<String, (String, Held)>,
    pub acknowledged: u64,
}

impl Known {
    pub fn see(&mut self, note: &str) {
        let words: Vec<&str> = note.split(' ').collect();
        match words[..] {
            [who, "done", sid] => {
                let (_, held) = self.doing.remove(who).unwrap();
                if sid == ALL {
                    self.sessions.values_mut().for_each(|session| *session = held);
                } else {
                    self.sessions.insert(sid.to_owned(), held);
                }
                self.acknowledged += 1;
            }
            [who, what, sid, number] => {
                let held = (what != "delete").then(|| number.parse().unwrap());
                self.doing.insert(who.to_owned(), (sid.to_owned(), held));
            }
            _ => panic!("not a note of a writer: {note}"),
        }
    }

    /// What a session may hold after a power cut.
    pub fn may_hold(&self, sid: &str) -> Vec<Held> {
        let under_way = self.doing.values().filter(|(doing, _)| doing == sid || doing == ALL).map(|(_, held)| *held);
        [self.sessions[sid]].into_iter().chain(under_way).collect()
    }
}
