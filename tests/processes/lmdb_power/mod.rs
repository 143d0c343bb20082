//! What `durability=power` promises, as far as it can be seen without a power cut: in which order
//! the files are written and the disk is waited for, and what happens when the disk fails. The
//! processes under test run with a shim before the C library (lmdb_power/shim.c), which notes that.

mod images;
mod shim;
mod writer;

use std::{
    fs,
    io::{Read, Write, stdin, stdout},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore, found};
use crate::process::{ends_well, first_line, kill, part, seed, times};
use images::Disk;
use shim::{Event, File};
use sss::{Access, Error, ErrorKind, Store};
use writer::Known;

suite! {
    tests: [
        new_store_survives_power_cut,
        durability_change_syncs_data_first,
        failed_disk_stops_acknowledgements,
        power_cut_images_keep_acknowledged_writes,
        power_cut_images_keep_revocations,
    ],
    parts: [open, write_and_wait, fail, writer::write, writer::revoke],
}

/// A part of this program with the shim, and where its log is.
struct Shimmed<'a> {
    library: &'a Path,
    log: PathBuf,
}

impl<'a> Shimmed<'a> {
    fn new(library: &'a Path, place: &TemporaryStore) -> Shimmed<'a> {
        Shimmed { library, log: place.directory().with_extension("log") }
    }

    fn part(&self, name: &str, args: &[&str]) -> Command {
        let mut command = part(name, args);
        command.env("LD_PRELOAD", self.library).env("SSS_SHIM_LOG", &self.log);
        command
    }
}

impl Drop for Shimmed<'_> {
    fn drop(&mut self) {
        // It may not have come to be.
        let _ = fs::remove_file(&self.log);
    }
}

/// The names of a new directory, and of the data in it, are on the disk before the store is said to
/// be there.
fn new_store_survives_power_cut() {
    let Some(library) = shim::build() else { return };
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let shimmed = Shimmed::new(&library, &place);
        ends_well(shimmed.part("lmdb_power::open", &[&place.url("")]).spawn().unwrap());
        let events = shim::events(&shimmed.log);
        let at = |path: &Path| {
            let is_it = |event: &Event| matches!(event, Event::Directory(directory) if directory == path);
            (events.iter().position(is_it), events.iter().rposition(is_it))
        };
        let ((parent, _), (named, last_named)) = (at(place.directory().parent().unwrap()), at(place.directory()));
        assert!(parent.expect("the parent") < named.expect("the directory"), "{events:?}");
        // Once for state.shm, once for data.mdb.
        assert!(named < last_named, "{events:?}");
    }
}

fn durability_change_syncs_data_first() {
    let Some(library) = shim::build() else { return };
    let place = TemporaryStore::of(Engine::Lmdb);
    let mut child = part("lmdb_power::write_and_wait", &[&place.url("")]).spawn().unwrap();
    first_line(&mut child);
    kill(child);
    // What it wrote is nowhere but in memory, perhaps.
    let shimmed = Shimmed::new(&library, &place);
    ends_well(shimmed.part("lmdb_power::open", &[&place.url("durability=power")]).spawn().unwrap());
    let events = shim::events(&shimmed.log);
    let first = |is_it: fn(&Event) -> bool| events.iter().position(is_it).expect("an event of the kind");
    let on_disk = first(|event| matches!(event, Event::Waited(File::Data, _)));
    let said = first(|event| matches!(event, Event::Wait(File::Map, _)));
    assert!(on_disk < said, "{events:?}");
}

/// The wait for the data of a commit, and that for its meta page: whichever fails.
fn failed_disk_stops_acknowledgements() {
    let Some(library) = shim::build() else { return };
    for fails in ["fail", "fail.later"] {
        let place = TemporaryStore::of(Engine::LmdbPower);
        let other = place.open("");
        let (before, _) = other.create(b"before", &PLAIN).unwrap();
        let shimmed = Shimmed::new(&library, &place);
        let failure = place.directory().join("fail");
        let mut command =
            shimmed.part("lmdb_power::fail", &[&place.url(""), failure.with_file_name(fails).to_str().unwrap()]);
        ends_well(command.env("SSS_SHIM_FAIL", failure).spawn().unwrap());
        // Another process, whose own disk has never failed.
        assert_failed(other.create(b"hello", &PLAIN));
        assert_eq!(other.get(&before, Access::Slide).unwrap().0, b"before");
        drop(other);
        assert_eq!(forgets(&shimmed, &place), (true, false), "after a failure, and when that is over");
        let again = place.open("");
        assert_eq!(again.get(&before, Access::Peek).unwrap().0, b"before");
        again.create(b"hello", &PLAIN).unwrap();
    }
}

/// Whether the data are read from the disk again by the first process that opens the store and by
/// the next one; and before they are said to be there.
fn forgets(shimmed: &Shimmed, place: &TemporaryStore) -> (bool, bool) {
    let [first, second] = [(), ()].map(|()| {
        fs::write(&shimmed.log, b"").unwrap();
        ends_well(shimmed.part("lmdb_power::open", &[&place.url("")]).spawn().unwrap());
        let events = shim::events(&shimmed.log);
        let forgotten = events.iter().position(|event| matches!(event, Event::Forgotten));
        let said = events.iter().position(|event| matches!(event, Event::Wait(File::Data, _)));
        forgotten.inspect(|forgotten| assert!(*forgotten < said.unwrap(), "{events:?}")).is_some()
    });
    (first, second)
}

#[track_caller]
fn assert_failed<T>(result: Result<T, Error>) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

/// The part: `URL FILE`. Writes, and continues when the disk fails, which a file with this name
/// brings about.
fn fail(args: &[String]) {
    let [url, file] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    fs::write(file, b"").unwrap();
    assert_failed(store.put(&sid, b"lost", &PLAIN));
    assert!(!Path::new(file).exists(), "nothing has failed");
    for _ in 0..3 {
        assert_failed(store.put(&sid, b"hello", &PLAIN));
        assert_failed(store.create(b"hello", &PLAIN));
        assert_failed(store.delete(&sid));
    }
    store.get(&sid, Access::Peek).unwrap();
}

fn power_cut_images_keep_acknowledged_writes() {
    cut_power("lmdb_power::writer::write", 2, times(60, 300), times(80, 2000));
}

fn power_cut_images_keep_revocations() {
    cut_power("lmdb_power::writer::revoke", 1, times(3, 20), times(40, 1000));
}

/// Runs processes that write, and looks at what is on the disk if the power is cut at some moments.
fn cut_power(writer: &str, processes: u64, steps: u64, cuts: u64) {
    let Some(library) = shim::build() else { return };
    let seed = seed();
    let mut rng = Rng(seed);
    let (place, there) = (TemporaryStore::of(Engine::LmdbPower), TemporaryStore::of(Engine::LmdbPower));
    let url = place.url("max_bytes=4MiB");
    drop(Store::open(&url).unwrap());
    let files = ["data.mdb", "state.shm"].map(|name| place.directory().join(name));
    let mut disk = Disk::new(fs::read(&files[0]).unwrap());
    let shimmed = Shimmed::new(&library, &place);
    fs::write(&shimmed.log, b"").unwrap();
    let log = shimmed.log.to_str().unwrap();
    let steps = steps.to_string();
    let writers: Vec<_> = (0..processes)
        .map(|_| shimmed.part(writer, &[&url, log, &rng.next().to_string(), &steps]).spawn().unwrap())
        .collect();
    writers.into_iter().for_each(|writer| drop(ends_well(writer)));
    let map = after_power_cut(&fs::read(&files[1]).unwrap());
    let events = shim::events(&shimmed.log);

    let mut moments: Vec<usize> = (0..cuts).map(|_| rng.below(events.len() + 1)).collect();
    moments.sort_unstable();
    let (mut known, mut seen, mut most) = (Known::default(), 0, 0);
    fs::DirBuilder::new().mode(0o700).create(there.directory()).unwrap();
    for moment in moments {
        for (number, event) in events.iter().enumerate().take(moment).skip(seen) {
            disk.see(number, event);
            if let Event::Note(note) = event {
                known.see(note);
            }
        }
        seen = moment;
        let (image, in_balance) = disk.image(&mut rng);
        most = most.max(in_balance);
        for (name, bytes) in [("data.mdb", &image), ("state.shm", &map)] {
            fs::write(there.directory().join(name), bytes).unwrap();
        }
        holds(&there.url("max_bytes=4MiB"), &known).unwrap_or_else(|why| panic!("seed {seed}, event {moment}: {why}"));
    }
    let (events, acknowledged) = (events.len(), known.acknowledged);
    println!(
        "{cuts} power cuts in {events} events, with up to {most} pages in the balance; {acknowledged} acknowledged"
    );
}

/// What state.shm says after the machine has restarted.
fn after_power_cut(map: &[u8]) -> Vec<u8> {
    const BOOT: std::ops::Range<usize> = 8..24;
    const CLEAN: usize = 24;
    let mut map = map.to_vec();
    map[BOOT].iter_mut().for_each(|byte| *byte ^= 0xFF);
    map[CLEAN] = 0;
    map
}

/// Opens what was found, and looks whether all is there.
fn holds(url: &str, known: &Known) -> Result<(), String> {
    let store = Store::open(url).map_err(|error| error.to_string())?;
    let findings = store.check().map_err(|error| error.to_string())?;
    if !findings.is_empty() {
        return Err(findings.join("; "));
    }
    for sid in known.sessions.keys() {
        let read = found(store.get(sid, Access::Peek)).map(|(payload, _)| payload);
        if !known.may_hold(sid).iter().any(|held| held.map(writer::payload) == read) {
            let len = read.map(|read| read.len());
            return Err(format!("a session should hold {:?} and holds {len:?} bytes", known.may_hold(sid)));
        }
    }
    Ok(())
}

/// The part: opens a store and ends.
fn open(args: &[String]) {
    Store::open(&args[0]).unwrap();
}

/// The part: writes a session, says so, and waits to be killed.
fn write_and_wait(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    store.create(b"hello", &PLAIN).unwrap();
    stdout().write_all(b"done\n").unwrap();
    stdin().read_to_end(&mut Vec::new()).unwrap();
}
