//! Readers of an `lmdb:` store that are killed in the middle of a read: LMDB keeps a slot and a
//! snapshot for each, and both are given back, so that neither readers nor writers run out of room.
//! `make torture` does the same more often.

use std::{
    io::{Write, stdout},
    os::unix::process::CommandExt,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore};
use crate::process::{ends_well, first_line, kill, now, part, seed, times};
use sss::{Access, ErrorKind, Store};

suite! {
    tests: [
        dead_readers_free_snapshots,
        dead_readers_free_slots,
        exec_frees_reader_slots,
    ],
    parts: [read, hold, become_it],
}

/// A payload that takes many pages (which are not sealed: without optimization that takes longer
/// than everything else), and says whether it is whole.
fn payload(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(6000)
}

#[track_caller]
fn is_whole(bytes: &[u8]) {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == payload(number), "a payload is torn");
}

/// Starts a part and waits until it has begun to read.
fn start(name: &str, args: &[&str]) -> Child {
    let mut child = part(name, args).spawn().unwrap();
    assert_eq!(first_line(&mut child), "reading");
    child
}

/// The part: reads a session again and again.
fn read(args: &[String]) {
    let [url, sid] = args else { panic!("not the arguments of a reader: {args:?}") };
    let store = Store::open(url).unwrap();
    for i in 0_u64.. {
        is_whole(&store.get(sid, Access::Slide).unwrap().0);
        if i == 0 {
            stdout().write_all(b"reading\n").unwrap();
        }
    }
}

/// The part: so many threads begin to read a session and never end.
fn hold(args: &[String]) {
    let [url, sid, threads] = args else { panic!("not the arguments of a holder: {args:?}") };
    let (store, threads) = (&Store::open(url).unwrap(), threads.parse::<usize>().unwrap());
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let begun = begun.clone();
            scope.spawn(move || {
                store.read::<_, sss::Error>(sid, Access::Peek, |bytes, _| {
                    is_whole(bytes);
                    begun.send(()).unwrap();
                    loop {
                        thread::sleep(Duration::from_secs(60));
                    }
                    #[allow(unreachable_code)]
                    Ok(())
                })
            });
        }
        (0..threads).for_each(|_| has_begun.recv().unwrap());
        stdout().write_all(b"reading\n").unwrap();
    });
}

fn dead_readers_free_snapshots() {
    let seed = seed();
    let mut rng = Rng(seed);
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        // Each put takes a 90th of it, so it is full soon if what dead readers saw is kept.
        let url = place.url("max_bytes=4MiB&seal=off");
        let store = Store::open(&url).unwrap();
        let (sid, _) = store.create(&payload(0), &PLAIN).unwrap();
        let mut readers: Vec<Child> = (0..3).map(|_| start("lmdb_readers::read", &[&url, sid.as_str()])).collect();
        let (kills, mut puts) = (times(40, 1000), 0);
        for kill_number in 0..kills {
            let until = now() + rng.next() % 20_000_000;
            while now() < until {
                puts += 1;
                store.put(&sid, &payload(puts), &PLAIN).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            let reader = readers.swap_remove(rng.below(readers.len()));
            kill(reader);
            // Every other one dies in the middle of a read for certain.
            if kill_number % 2 == 0 {
                kill(start("lmdb_readers::hold", &[&url, sid.as_str(), "2"]));
            }
            readers.push(start("lmdb_readers::read", &[&url, sid.as_str()]));
        }
        readers.into_iter().for_each(kill);
        println!("{engine:?}: {kills} readers killed beside {puts} writes");
        assert!(puts > kills, "seed {seed}: the writer was held up");
    }
}

fn dead_readers_free_slots() {
    // More than there are, in all.
    const THREADS: u64 = 250;
    let place = TemporaryStore::of(Engine::Lmdb);
    let (store, url) = (place.open("seal=off"), place.url("seal=off"));
    let (sid, _) = store.create(&payload(1), &PLAIN).unwrap();
    for round in 0..times(10, 40) {
        let holder = start("lmdb_readers::hold", &[&url, sid.as_str(), &THREADS.to_string()]);
        kill(holder);
        store.get(&sid, Access::Peek).unwrap_or_else(|error| panic!("round {round}: {error}"));
    }
    // And as many as there are can be under way at once; one more is told to wait.
    let holders: Vec<Child> =
        (0..8).map(|_| start("lmdb_readers::hold", &[&url, sid.as_str(), &THREADS.to_string()])).collect();
    store.get(&sid, Access::Peek).unwrap();
    holders.into_iter().for_each(kill);
    assert_ne!(store.put(&sid, b"x", &PLAIN).map_err(|error| error.kind()), Err(ErrorKind::Busy));
}

/// As uWSGI does for a reload: the number of the process stays the same, so no other process can
/// tell that its readers are gone.
fn exec_frees_reader_slots() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let (store, url) = (place.open("seal=off"), place.url("seal=off"));
    let (sid, _) = store.create(&payload(1), &PLAIN).unwrap();
    let output = ends_well(part("lmdb_readers::become_it", &[&url, sid.as_str(), "10"]).spawn().unwrap());
    assert_eq!(output, "the last one\n");
    store.get(&sid, Access::Peek).unwrap();
}

/// The part: many threads begin to read; then this process becomes the same program again, so many
/// times.
fn become_it(args: &[String]) {
    const THREADS: usize = 250;
    let [url, sid, times] = args else { panic!("not the arguments: {args:?}") };
    let (store, times) = (&Store::open(url).unwrap(), times.parse::<u32>().unwrap());
    store.put(sid, &payload(1), &PLAIN).unwrap();
    if times == 0 {
        println!("the last one");
        return;
    }
    let (begun, has_begun) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let begun = begun.clone();
            scope.spawn(move || {
                store
                    .read::<_, sss::Error>(sid, Access::Peek, |_, _| {
                        begun.send(()).unwrap();
                        thread::sleep(Duration::from_secs(60));
                        Ok(())
                    })
                    .unwrap_or_else(|error| {
                        eprintln!("{times} times before the end: {error}");
                        std::process::exit(1)
                    });
            });
        }
        (0..THREADS).for_each(|_| has_begun.recv().unwrap());
        let error = part("lmdb_readers::become_it", &[url, sid, &(times - 1).to_string()])
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .exec();
        panic!("{error}");
    });
}
