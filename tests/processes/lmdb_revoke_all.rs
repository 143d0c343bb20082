//! `revoke_all` on an `lmdb:` store that other processes use and that is killed: whatever `create`
//! or `renew` had returned before the call is dead when it returns, in every process, and a call
//! that is killed has ended all sessions or none.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write, stdout},
    process::Child,
    thread::{self, JoinHandle, sleep},
    time::Duration,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore, grace};
use crate::process::{first_line, kill, now, part, seed, times};
use sss::{Access, ErrorKind, Store};

suite! {
    tests: [sessions_of_all_processes_end, killed_revoke_all_ends_all_or_none],
    parts: [renew_all_the_time, revoke],
}

const PROCESSES: usize = 3;

/// The part: creates sessions and renews them, with and without grace, and says each id when it has
/// it, with the number of its session.
fn renew_all_the_time(args: &[String]) {
    let [url, seed] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    let mut rng = Rng(seed.parse().unwrap());
    let mut own: Vec<(usize, String)> = Vec::new();
    for number in 0.. {
        let (number, sid) = if own.len() < 20 {
            (number, store.create(b"hello", &PLAIN.principal("alice")).unwrap().0)
        } else {
            let (number, old) = own.swap_remove(rng.below(own.len()));
            let options = if rng.one_in(2) { PLAIN } else { grace(60_000) };
            match store.renew(&old, None, &options) {
                Ok((sid, _)) => (number, sid),
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => panic!("{error}"),
            }
        };
        stdout().write_all(format!("{number} {}\n", sid.as_str()).as_bytes()).unwrap();
        own.push((number, sid.as_str().to_owned()));
    }
}

/// What a process says, with the time at which it was heard; by its session's number.
type Said = BTreeMap<usize, Vec<(u64, String)>>;

fn listen(child: &mut Child) -> JoinHandle<Said> {
    let output = BufReader::new(child.stdout.take().unwrap());
    thread::spawn(move || {
        let mut said = Said::new();
        // The last line may be cut.
        for line in output.lines().map_while(Result::ok) {
            let Some((number, sid)) = line.split_once(' ') else { continue };
            said.entry(number.parse().unwrap()).or_default().push((now(), sid.to_owned()));
        }
        said
    })
}

fn sessions_of_all_processes_end() {
    let seed = seed();
    let mut rng = Rng(seed);
    for round in 0..times(6, 200) {
        let place = TemporaryStore::of([Engine::Lmdb, Engine::LmdbPower][round as usize % 2]);
        let url = place.url("max_bytes=8MiB");
        let store = Store::open(&url).unwrap();
        let mut children: Vec<Child> = (0..PROCESSES)
            .map(|_| part("lmdb_revoke_all::renew_all_the_time", &[&url, &rng.next().to_string()]).spawn().unwrap())
            .collect();
        let listeners: Vec<_> = children.iter_mut().map(listen).collect();
        // Until some have been created.
        while store.list(b"alice").unwrap().len() < 10 * PROCESSES {
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(rng.next() % 20_000));
        let called = now();
        let revoked = store.revoke_all().unwrap();
        children.into_iter().for_each(kill);
        let (mut dead, mut later) = (0, 0);
        for said in listeners.into_iter().map(|listener| listener.join().unwrap()) {
            for ids in said.into_values() {
                // A session that had been returned before the call has ended, under each of its ids.
                let was_returned = ids[0].0 < called;
                for (_, sid) in &ids {
                    let is_dead = store.get(sid, Access::Peek).is_err_and(|error| error.kind() == ErrorKind::NotFound);
                    assert!(is_dead || !was_returned, "seed {seed}, round {round}: a session outlives revoke_all");
                }
                if was_returned { dead += 1 } else { later += 1 }
            }
        }
        assert!(revoked >= dead, "seed {seed}, round {round}: {revoked} of {dead}");
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "seed {seed}, round {round}");
        println!("{revoked} revoked, {dead} of them known, {later} created later");
    }
}

/// The part: ends all sessions, after it has said so.
fn revoke(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    println!("revoking");
    store.revoke_all().unwrap();
    loop {
        thread::park();
    }
}

fn killed_revoke_all_ends_all_or_none() {
    const SESSIONS: u64 = 400;
    let seed = seed();
    let mut rng = Rng(seed);
    let (mut all, mut none, mut unfinished) = (0, 0, 0);
    for round in 0..times(20, 1000) {
        let place = TemporaryStore::of([Engine::Lmdb, Engine::LmdbPower][round as usize % 2]);
        let url = place.url("max_bytes=4MiB&seal=off");
        let store = Store::open(&url).unwrap();
        let options = PLAIN.principal("alice");
        let sids: Vec<_> = (0..SESSIONS).map(|_| store.create(b"hello", &options).unwrap().0).collect();
        // Half of the times no other process has it open when it is opened again.
        let kept = rng.one_in(2).then_some(store);
        let mut child = part("lmdb_revoke_all::revoke", &[&url]).spawn().unwrap();
        assert_eq!(first_line(&mut child), "revoking");
        sleep(Duration::from_micros(rng.next() % 8000));
        kill(child);
        let store = kept.unwrap_or_else(|| Store::open(&url).unwrap());
        let context = format!("seed {seed}, round {round}");
        let living = sids.iter().filter(|sid| store.get(sid, Access::Peek).is_ok()).count() as u64;
        assert!(living == 0 || living == SESSIONS, "{context}: {living} of {SESSIONS} live on");
        assert_eq!(store.list(b"alice").unwrap().len() as u64, living, "{context}");
        unfinished += u64::from(living == 0 && store.stats().unwrap().sessions > 0);
        assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{context}");
        let (new, _) = store.create(b"hello", &PLAIN).unwrap();
        store.sweep(u64::MAX).unwrap();
        assert_eq!(store.stats().unwrap().sessions, living + 1, "{context}");
        assert!(store.get(&new, Access::Peek).is_ok(), "{context}");
        if living == 0 { all += 1 } else { none += 1 }
    }
    println!("all ended {all} times, {unfinished} of them not removed yet; none {none} times");
}
