//! A process that writes until it is killed, and what its parent hears of it. One process has one
//! or more writers, each a thread with sessions of its own.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write, stdin, stdout},
    process::Child,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use sss::Store;

use super::session::{self, Doing, Sessions};
use crate::{
    common::Rng,
    process::{now, part},
};

/// What is known of a writer when it has died.
#[derive(Default)]
pub struct Known {
    pub sessions: Sessions,
    /// Ids that were acknowledged to be dead.
    pub dead: Vec<String>,
    /// What it was at: may have happened or not.
    pub doing: Option<Doing>,
    pub acknowledged: u64,
}

/// By number.
pub type Writers = BTreeMap<usize, Known>;

/// When each write of a process began and was acknowledged.
pub type Times = Arc<Mutex<Vec<(u64, u64)>>>;

pub struct Process {
    child: Child,
    listener: JoinHandle<Writers>,
    pub times: Times,
}

/// The part: `URL SEED`, and the writers' sessions from standard input.
pub fn write(args: &[String]) {
    let [url, seed] = args else { panic!("not the arguments of a writer: {args:?}") };
    let mut writers: BTreeMap<usize, Sessions> = BTreeMap::new();
    for line in stdin().lock().lines().map(Result::unwrap) {
        match line.split_once(' ').unwrap() {
            (number, "") => drop(writers.entry(number.parse().unwrap()).or_default()),
            (number, session) => {
                writers.get_mut(&number.parse().unwrap()).unwrap().extend([session::parse(session)]);
            }
        }
    }
    let store = &Store::open(url).unwrap();
    let seed: u64 = seed.parse().unwrap();
    thread::scope(|scope| {
        for (number, mut sessions) in writers {
            scope.spawn(move || {
                let mut rng = Rng(seed.wrapping_add(number as u64));
                let say = |line: String| stdout().write_all(format!("{number} {line}\n").as_bytes()).unwrap();
                loop {
                    let doing = Doing::any(&mut rng, &sessions);
                    say(format!("{} {}", now(), doing.to_line()));
                    match doing.run(store, number, &sessions) {
                        Ok(done) => {
                            say(format!("{} done {} {}", now(), done.0, done.1));
                            doing.apply(&done, &mut sessions, &mut Vec::new());
                        }
                        Err(error) => say(format!("{} failed {error}", now())),
                    }
                }
            });
        }
    });
}

impl Process {
    pub fn start(url: &str, seed: u64, writers: Writers) -> Process {
        let mut child = part("lmdb_crash::writer::write", &[url, &seed.to_string()]).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for (number, known) in &writers {
            writeln!(input, "{number} ").unwrap();
            for (sid, held) in &known.sessions {
                writeln!(input, "{number} {}", session::to_line(sid, held)).unwrap();
            }
        }
        drop(input);
        let (output, times) = (BufReader::new(child.stdout.take().unwrap()), Times::default());
        let listener = thread::spawn({
            let times = times.clone();
            move || listen(output, writers, &times)
        });
        Process { child, listener, times }
    }

    /// Kills it, and says when.
    pub fn kill(&mut self) -> u64 {
        let when = now();
        self.child.kill().unwrap();
        when
    }

    /// What it had told when it died.
    pub fn bury(mut self) -> Writers {
        let status = self.child.wait().unwrap();
        assert!(status.code().is_none(), "a writer ended before it was killed: {status}");
        self.listener.join().unwrap()
    }
}

fn listen(lines: impl BufRead, mut writers: Writers, times: &Times) -> Writers {
    let mut begun = BTreeMap::new();
    for line in lines.lines().map(Result::unwrap) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [number, when, rest @ ..] = &words[..] else { panic!("not a line of a writer: {line}") };
        let (number, when): (usize, u64) = (number.parse().unwrap(), when.parse().unwrap());
        let known = writers.get_mut(&number).unwrap();
        match rest {
            ["failed", why @ ..] => panic!("{:?} failed: {}", known.doing, why.join(" ")),
            ["done", sid, version] => {
                let doing = known.doing.take().unwrap();
                doing.apply(&((*sid).to_owned(), version.parse().unwrap()), &mut known.sessions, &mut known.dead);
                known.acknowledged += 1;
                if doing.is_write() {
                    times.lock().unwrap().push((begun[&number], when));
                }
            }
            doing => {
                begun.insert(number, when);
                known.doing = Some(Doing::parse(doing));
            }
        }
    }
    writers
}
