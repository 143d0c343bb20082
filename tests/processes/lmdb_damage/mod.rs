//! The files of an `lmdb:` store are damaged while it is closed: bits, bytes, pages, their ends,
//! all of them. A process that opens and uses it then gets the right data, NOT_FOUND, or CORRUPT
//! with a text that says what to do, and never dies of a signal or hangs: each damaged copy is
//! looked at by a process of its own. Where a file is damaged under a process that has it open,
//! that may die, because LMDB believes what it has mapped; but a wrong payload it never gets. `make
//! torture` does the same more often. A failure names its seed; SSS_TEST_SEED repeats it.

mod damage;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, stdin},
    panic::{catch_unwind, resume_unwind},
    path::Path,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore, grace, kind, of};
use crate::process::{end_of, ends_well, part, seed, times};
use damage::{Damage, FILES};
use sss::{Access, Error, ErrorKind, Store};

const OPTIONS: &str = "max_bytes=4MiB&timeout=1h&idle_timeout=1h";
const PRINCIPALS: [&[u8]; 2] = [b"alice", b"bob"];

suite! {
    tests: [
        damaged_files_yield_no_wrong_payload,
        damaged_durable_files_yield_no_wrong_payload,
        live_damage_yields_no_wrong_payload,
    ],
    parts: [look, go_on],
}

fn damaged_files_yield_no_wrong_payload() {
    damages(Engine::Lmdb);
}

fn damaged_durable_files_yield_no_wrong_payload() {
    damages(Engine::LmdbPower);
}

/// A session's payload: which it is, so that no other one can be taken for it. Small, for without
/// optimization sealing takes longer than everything else, but some of them need pages of their
/// own.
fn payload(number: usize) -> Vec<u8> {
    const SIZES: [usize; 6] = [10, 50, 100, 300, 600, 2500];
    format!("session {number}, ").into_bytes().repeat(SIZES[number % SIZES.len()] / 10)
}

/// A closed store with all kinds of things in it. Returns the ids with the numbers of their
/// payloads.
fn fill(place: &TemporaryStore) -> String {
    let store = place.open(OPTIONS);
    let mut ids = Vec::new();
    for number in 0..60 {
        let (sid, _) = match number % 3 {
            0 => store.create(&payload(number), &PLAIN).unwrap(),
            i => store.create(&payload(number), &of(PRINCIPALS[i - 1])).unwrap(),
        };
        match number % 10 {
            // Its pages are free again.
            7 => store.delete(&sid).unwrap(),
            8 => {
                let (new, _) = store.renew(&sid, None, &grace(3_000_000)).unwrap();
                ids.extend([(sid, number), (new, number)]);
            }
            9 => {
                store.put(&sid, &payload(number), &PLAIN).unwrap();
                ids.push((sid, number));
            }
            _ => ids.push((sid, number)),
        }
    }
    ids.iter().map(|(sid, number)| format!("{} {number}\n", sid.as_str())).collect()
}

fn damages(engine: Engine) {
    let seed = seed();
    let (place, copy) = (TemporaryStore::of(engine), TemporaryStore::of(engine));
    let ids = fill(&place);
    fs::create_dir(copy.directory()).unwrap();
    set_mode(copy.directory(), 0o700);
    let ids_file = copy.directory().with_extension("ids");
    fs::write(&ids_file, ids).unwrap();
    let sound = FILES.map(|name| fs::read(place.directory().join(name)).unwrap());
    let look = |how: &str| {
        let args = [&copy.url(OPTIONS), ids_file.to_str().unwrap(), how];
        ends_well(part("lmdb_damage::look", &args).spawn().unwrap())
    };
    let write = |files: &[Vec<u8>; 3]| {
        for name in fs::read_dir(copy.directory()).unwrap() {
            fs::remove_file(name.unwrap().path()).unwrap();
        }
        for (name, bytes) in FILES.iter().zip(files).filter(|(_, bytes)| !bytes.is_empty()) {
            fs::write(copy.directory().join(name), bytes).unwrap();
            set_mode(&copy.directory().join(name), 0o600);
        }
    };
    write(&sound);
    assert_eq!(look("use"), "all\n");
    let mut came = BTreeMap::new();
    let rounds = times(100, 1000);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        let (damage, files) = Damage::any(&mut Rng(seed), &sound);
        write(&files);
        let how = if round % 4 == 3 { "follow" } else { "use" };
        let looked = catch_unwind(|| look(how)).unwrap_or_else(|why| {
            println!("SSS_TEST_SEED={seed}: {damage:?}");
            resume_unwind(why)
        });
        *came.entry(looked.trim().to_owned()).or_insert(0) += 1;
    }
    fs::remove_file(ids_file).unwrap();
    println!("{engine:?}: {rounds} damaged copies gave {came:?}");
}

fn live_damage_yields_no_wrong_payload() {
    let seed = seed();
    let mut came = BTreeMap::new();
    let rounds = times(30, 600);
    for round in 0..rounds {
        let (seed, engine) = (seed.wrapping_add(round), [Engine::Lmdb, Engine::LmdbPower][round as usize % 2]);
        let place = TemporaryStore::of(engine);
        let ids_file = place.directory().with_extension("ids");
        fs::write(&ids_file, fill(&place)).unwrap();
        let mut child = part("lmdb_damage::go_on", &[&place.url(OPTIONS), ids_file.to_str().unwrap()]).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        let damage = Damage::to_live(&mut Rng(seed), place.directory());
        // It continues when its input ends.
        drop(child.stdin.take());
        let status = end_of(&mut child);
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        fs::remove_file(ids_file).unwrap();
        let end = match status {
            None => "hung".to_owned(),
            Some(status) if status.code().is_none() => "died".to_owned(),
            Some(status) => {
                assert!(status.success(), "SSS_TEST_SEED={seed}: {damage:?}: {status}");
                said.trim().to_owned()
            }
        };
        *came.entry(end).or_insert(0) += 1;
    }
    println!("{rounds} times damaged under a process, which found or came to: {came:?}");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

/// The part: opens a store that is damaged perhaps, and does all that a server does. Says how much
/// of it was found.
fn look(args: &[String]) {
    let [url, ids, how] = args else { panic!("not the arguments of a look: {args:?}") };
    let ids = read_ids(ids);
    let opened = if how == "use" { Store::open(url) } else { Store::open_existing(url.split('?').next().unwrap()) };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            expected(&error);
            println!("{:?}", error.kind());
            return;
        }
    };
    let mut found = 0;
    for (sid, number) in &ids {
        if let Some((bytes, meta)) = fine(store.get(sid, Access::Slide)) {
            assert!(bytes == payload(*number), "session {number} has another payload");
            assert!((1..=3).contains(&meta.version()), "session {number}: {meta:?}");
            found += 1;
        }
    }
    for principal in PRINCIPALS {
        fine(store.list(principal));
    }
    fine(store.stats());
    fine(store.check());
    fine(store.sweep(10));
    for (i, (sid, number)) in ids.iter().enumerate() {
        match i % 4 {
            0 => drop(fine(store.put(sid, &payload(*number), &PLAIN))),
            1 => drop(fine(store.touch(sid))),
            2 => {
                let Some((new, _)) = fine(store.renew(sid, None, &PLAIN)) else { continue };
                let Some((bytes, _)) = fine(store.get(&new, Access::Peek)) else { continue };
                assert!(bytes == payload(*number), "session {number} was renewed to another payload");
            }
            _ => drop(fine(store.delete(sid))),
        }
    }
    for number in 0..12 {
        let Some((sid, _)) = fine(store.create(&payload(number), &of(PRINCIPALS[0]))) else { continue };
        let read = store.get(&sid, Access::Peek);
        // By damaged settings, which only this one follows, a session may expire at once.
        if how == "follow" && kind(&read) == Some(ErrorKind::NotFound) {
            continue;
        }
        assert!(read.unwrap().0 == payload(number), "a new session has another payload");
    }
    for principal in PRINCIPALS {
        fine(store.revoke(principal, None));
    }
    fine(store.sweep(10));
    fine(store.check());
    println!("{}", how_many(found, ids.len()));
}

fn read_ids(path: &str) -> Vec<(String, usize)> {
    let ids = fs::read_to_string(path).unwrap();
    let pairs = ids.lines().map(|line| line.split_once(' ').unwrap());
    pairs.map(|(sid, number)| (sid.to_owned(), number.parse().unwrap())).collect()
}

fn how_many(found: usize, of: usize) -> &'static str {
    match found {
        0 => "none",
        _ if found == of => "all",
        _ => "some",
    }
}

/// The part: opens a store, waits until it is damaged, and does what a server does, whatever error
/// comes of it.
fn go_on(args: &[String]) {
    let [url, ids] = args else { panic!("not the arguments: {args:?}") };
    let (store, ids) = (Store::open(url).unwrap(), read_ids(ids));
    println!("open");
    stdin().read_to_end(&mut Vec::new()).unwrap();
    let mut found = 0;
    let mut read = |sid: &str, number: usize| {
        if let Some((bytes, _)) = any(store.get(sid, Access::Slide)) {
            assert!(bytes == payload(number), "session {number} has another payload");
            found += 1;
        }
    };
    for (sid, number) in &ids {
        read(sid, *number);
    }
    for (sid, number) in ids.iter().take(6) {
        any(store.put(sid, &payload(*number), &PLAIN));
        read(sid, *number);
        if let Some((sid, _)) = any(store.renew(sid, None, &PLAIN)) {
            read(sid.as_str(), *number);
        }
        if let Some((sid, _)) = any(store.create(&payload(*number), &of(PRINCIPALS[0]))) {
            read(sid.as_str(), *number);
        }
    }
    any(store.list(PRINCIPALS[0]));
    any(store.revoke(PRINCIPALS[0], None));
    any(store.sweep(10));
    println!("{}", if found > 0 { "some" } else { "none" });
}

/// What came, if it is no error; never a panic.
#[track_caller]
fn any<T>(result: Result<T, Error>) -> Option<T> {
    assert_ne!(kind(&result), Some(ErrorKind::Panic), "{:?}", result.err());
    result.ok()
}

/// What was found; nothing if it is gone or damaged, and that was said well.
#[track_caller]
fn fine<T>(result: Result<T, Error>) -> Option<T> {
    if kind(&result) == Some(ErrorKind::NotFound) || kind(&result) == Some(ErrorKind::Full) {
        return None;
    }
    result.inspect_err(expected).ok()
}

#[track_caller]
fn expected(error: &Error) {
    let helps = [
        "move it away",
        "move all files in it away",
        "close the store everywhere",
        "damaged or edited",
        // The four bytes that say which secret it is.
        "not in the secret_file",
    ];
    match error.kind() {
        ErrorKind::Corrupt => assert!(helps.iter().any(|help| error.message().contains(help)), "{error}"),
        // The one bit of the store's record that says how it was made.
        ErrorKind::Exists => assert!(error.message().contains("the store was made"), "{error}"),
        // The number of a layout, and nothing else.
        ErrorKind::Unsupported => assert!(error.message().contains("by a newer version"), "{error}"),
        // A store that follows makes none of nothing.
        ErrorKind::Io => assert!(error.message().contains("there is no lmdb: store"), "{error}"),
        _ => panic!("{error:?}"),
    }
}
