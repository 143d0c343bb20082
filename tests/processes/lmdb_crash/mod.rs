//! Writers and readers of an `lmdb:` store are killed by SIGKILL at random moments, and everything
//! that was acknowledged holds. `make torture` does the same more often (SSS_TORTURE). A failure
//! names its seed; SSS_TEST_SEED repeats it, as far as processes can be repeated.

mod session;
mod writer;

use std::{
    collections::BTreeSet,
    fmt,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    thread::sleep,
    time::Duration,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore, of};
use crate::process::{first_line, is_torture, kill, now, part, seed, times};
use session::{Doing, Sessions, is_as, look};
use sss::{Access, Store};
use writer::{Known, Process, Writers};

suite! {
    tests: [
        killed_writers_lose_nothing_acknowledged,
        killed_durable_writers_lose_nothing_acknowledged,
        killed_writer_does_not_delay_next,
        killed_create_evicts_with_its_commit,
        acknowledged_use_survives_kill,
    ],
    parts: [writer::write, create, write_with_much_memory, get_once],
}

const PROCESSES: usize = 4;
/// A writer that is held up for longer than this waits for a dead one.
const PATIENCE: Duration = Duration::from_secs(30);
/// After the death of a writer the next one continues within this time, beside what it waits for a
/// busy machine anyway.
const NEXT_WRITER: Duration = Duration::from_millis(100);

fn killed_writers_lose_nothing_acknowledged() {
    kill_writers(&TemporaryStore::of(Engine::Lmdb), "max_bytes=16MiB", 1, times(80, 2500));
}

fn killed_durable_writers_lose_nothing_acknowledged() {
    kill_writers(&TemporaryStore::of(Engine::LmdbPower), "max_bytes=16MiB", 2, times(30, 1000));
}

/// Each process has `threads` writers.
fn kill_writers(place: &TemporaryStore, options: &str, threads: usize, kills: u64) {
    let (url, seed) = (place.url(options), seed());
    let mut rng = Rng(seed);
    let start = |rng: &mut Rng, writers| Process::start(&url, rng.next(), writers);
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|i| start(&mut rng, (0..threads).map(|t| (i * threads + t, Known::default())).collect()))
        .collect();
    let (mut killed, mut acknowledged, mut unknown) = (0, 0, 0);
    // In nanoseconds: until another writer continued, without a kill and after kills; and until all
    // had.
    let (mut usual, mut next, mut worst_all) = (Vec::new(), Vec::new(), 0);
    while killed < kills {
        usual.push(wait_for_writes(&processes, now(), seed).0);
        sleep(Duration::from_micros(rng.next() % 40_000));
        if rng.one_in(15) {
            processes.iter_mut().for_each(|process| _ = process.kill());
            killed += PROCESSES as u64;
            let mut all: Vec<Writers> = processes.drain(..).map(Process::bury).collect();
            // No other process has it open, so this checks the file.
            let store = Store::open(&url).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            for writers in &mut all {
                acknowledged += verify(&store, writers, &mut unknown, seed);
            }
            verify_whole(&store, &all, unknown, seed);
            unknown = 0;
            drop(store);
            processes.extend(all.into_iter().map(|writers| start(&mut rng, writers)));
            continue;
        }
        let mut victim = processes.swap_remove(rng.below(PROCESSES));
        let when = victim.kill();
        killed += 1;
        let mut writers = victim.bury();
        let (first, last) = wait_for_writes(&processes, when, seed);
        next.push(first);
        worst_all = worst_all.max(last);
        let store = Store::open(&url).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        acknowledged += verify(&store, &mut writers, &mut unknown, seed);
        drop(store);
        processes.push(start(&mut rng, writers));
    }
    for mut process in processes {
        process.kill();
        acknowledged += process.bury().values().map(|known| known.acknowledged).sum::<u64>();
    }
    let [usual, next] = [usual, next].map(Spread::of);
    println!(
        "killed {killed} writers, {acknowledged} operations acknowledged, all of which held; the next writer continues after \
         {usual}, and after a kill {next}; all others after at most {:.1} ms",
        worst_all as f64 / 1e6
    );
    // Only where the machine has nothing else to do: the rest is what PATIENCE looks for. And not
    // each of them.
    let most = usual.most_times + NEXT_WRITER.as_nanos() as u64;
    assert!(
        !is_torture() || next.most_times <= most,
        "seed {seed}: the next writer continues after {usual}, and after a kill {next}"
    );
}

/// Of many times, in nanoseconds: that which 19 of 20 do not exceed, and the longest.
struct Spread {
    most_times: u64,
    longest: u64,
}

impl Spread {
    fn of(mut times: Vec<u64>) -> Spread {
        times.sort_unstable();
        Spread { most_times: times[(times.len() - 1) * 19 / 20], longest: times[times.len() - 1] }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [most_times, longest] = [self.most_times, self.longest].map(|ns| ns as f64 / 1e6);
        write!(f, "{most_times:.1} ms (at most {longest:.1})")
    }
}

/// How long after a moment the first of the processes, and the last, got a write through that it
/// began after that.
fn wait_for_writes(processes: &[Process], when: u64, seed: u64) -> (u64, u64) {
    let waits: Vec<u64> = processes.iter().map(|process| wait_for_a_write(process, when, seed)).collect();
    (*waits.iter().min().unwrap(), *waits.iter().max().unwrap())
}

fn wait_for_a_write(process: &Process, when: u64, seed: u64) -> u64 {
    loop {
        let mut times = process.times.lock().unwrap();
        times.retain(|(begun, _)| *begun >= when);
        let done = times.first().map(|(_, done)| *done);
        drop(times);
        if let Some(done) = done {
            return done - when;
        }
        assert!(now() - when < PATIENCE.as_nanos() as u64, "seed {seed}: a writer waits for one that was killed");
        sleep(Duration::from_micros(100));
    }
}

/// Looks whether all holds that dead writers knew, and which state the step that they were at has
/// left. Adds how many sessions there may be whose id is not known.
fn verify(store: &Store, writers: &mut Writers, unknown: &mut usize, seed: u64) -> u64 {
    let mut acknowledged = 0;
    for (number, known) in writers {
        let doing = known.doing.take();
        let after = doing.as_ref().map(|doing| settle(store, &known.sessions, doing, &mut known.dead));
        let (sessions, may_be_unknown) = after.unwrap_or_else(|| (known.sessions.clone(), false));
        for (sid, held) in &sessions {
            let found = look(store, sid);
            assert!(
                is_as(&found, Some(held)),
                "seed {seed}: writer {number} was at {doing:?}, had {held:?}, and found is version {:?}",
                found.map(|(version, _)| version)
            );
        }
        for sid in &known.dead {
            assert!(look(store, sid).is_none(), "seed {seed}: writer {number} was at {doing:?}, and a dead id reads");
        }
        known.dead.clear();
        known.sessions = sessions;
        *unknown += usize::from(may_be_unknown);
        acknowledged += std::mem::take(&mut known.acknowledged);
    }
    acknowledged
}

/// The sessions as they are after a step that may have happened or not, and whether there may be
/// one more.
fn settle(store: &Store, before: &Sessions, doing: &Doing, dead: &mut Vec<String>) -> (Sessions, bool) {
    let mut after = before.clone();
    match doing {
        Doing::Get(_) | Doing::TouchRef(_) => {}
        Doing::Create(..) => return (after, true),
        Doing::Put(sid, text) | Doing::PutIf(sid, text) => {
            let held = after.get_mut(sid).unwrap();
            if !is_as(&look(store, sid), Some(held)) {
                (held.version, held.text) = (held.version + 1, *text);
            }
        }
        Doing::Delete(sid) | Doing::DeleteRef(sid) | Doing::Renew(sid, _) => {
            if look(store, sid).is_none() {
                after.remove(sid);
                dead.push(sid.clone());
                return (after, matches!(doing, Doing::Renew(..)));
            }
        }
        Doing::Revoke(principal) => {
            let mine = || before.iter().filter(|(_, held)| held.principal == *principal).map(|(sid, _)| sid);
            // All of them or none.
            if mine().next().is_some_and(|sid| look(store, sid).is_none()) {
                dead.extend(mine().cloned());
                after.retain(|_, held| held.principal != *principal);
            }
        }
    }
    (after, false)
}

/// That tables and counts agree with one another, and with what all writers know. Ends the sessions
/// whose id is not known.
fn verify_whole(store: &Store, all: &[Writers], unknown: usize, seed: u64) {
    let writers = || all.iter().flatten();
    let known: usize = writers().map(|(_, known)| known.sessions.len()).sum();
    let lists = writers().flat_map(|(&number, _)| [0, 1].map(|whose| session::principal(number, whose)));
    let entries: Vec<_> = lists.flat_map(|principal| store.list(&principal).unwrap()).collect();
    let references: BTreeSet<_> = entries.iter().map(|entry| entry.reference).collect();
    let stats = store.stats().unwrap();
    assert_eq!(references.len(), entries.len(), "seed {seed}: listed twice");
    assert_eq!(stats.sessions, entries.len() as u64, "seed {seed}: sessions");
    assert_eq!(stats.bytes, entries.iter().map(|entry| entry.payload_len).sum::<u64>(), "seed {seed}: bytes");
    assert!((known..=known + unknown).contains(&entries.len()), "seed {seed}: {} of {known}", entries.len());
    assert_eq!(stats.errors, 0, "seed {seed}");
    let sids = writers().flat_map(|(_, known)| known.sessions.keys());
    let known: BTreeSet<_> = sids.map(|sid| store.reference(sid).unwrap()).collect();
    references.difference(&known).for_each(|reference| store.delete_ref(reference, None).unwrap());
}

/// A process that is killed gives back its memory before it counts as dead, and a large one takes
/// long for that.
fn killed_writer_does_not_delay_next() {
    let place = TemporaryStore::of(Engine::Lmdb);
    let url = place.url("");
    let store = Store::open(&url).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    let (kills, mut too_late) = (times(6, 30), 0);
    for _ in 0..kills {
        let mut child = part("lmdb_crash::write_with_much_memory", &[&url]).spawn().unwrap();
        assert_eq!(first_line(&mut child), "writing");
        sleep(Duration::from_millis(30));
        child.kill().unwrap();
        store.put(&sid, b"hello", &PLAIN).unwrap();
        too_late += u64::from(child.try_wait().unwrap().is_some());
        child.wait().unwrap();
    }
    assert!(too_late < kills, "{too_late} of {kills} times the next writer had to wait for the end of a killed one");
}

/// The part: takes much memory, says so, and writes payloads so large that it has the turn most of
/// the time. In one thread: a process with several counts as dead to the kernel when its first one
/// is.
fn write_with_much_memory(args: &[String]) {
    // Not all zeros, and read at the end: so it is there.
    let memory = vec![1_u8; 256 << 20];
    let store = Store::open(&args[0]).unwrap();
    let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
    stdout().write_all(b"writing\n").unwrap();
    while store.put(&sid, &memory[..10_000], &PLAIN).is_ok() {}
}

/// With `max_per_principal`, a new session ends the least recently used one: in one step, even if
/// it is killed.
fn killed_create_evicts_with_its_commit() {
    const MOST: usize = 3;
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let (place, seed) = (TemporaryStore::of(engine), seed());
        let (url, mut rng) = (place.url("max_per_principal=3"), Rng(seed));
        let store = Store::open(&url).unwrap();
        for round in 0..times(80, 1000) {
            let mut child = part("lmdb_crash::create", &[&url]).spawn().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            // Then it is at work.
            let sids: Vec<String> = lines.by_ref().take(MOST).map(Result::unwrap).collect();
            assert_eq!(sids.len(), MOST);
            sleep(Duration::from_micros(rng.next() % 10_000));
            kill(child);
            // Which ones is not certain: in one millisecond all are used equally recently.
            let living = store.list(b"alice").unwrap().len();
            assert_eq!(living, MOST, "{url}, seed {seed}, round {round}");
        }
    }
}

/// The part: begins one session of alice's after the other.
fn create(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    loop {
        let (sid, _) = store.create(b"hello", &of(b"alice")).unwrap();
        stdout().write_all(format!("{}\n", sid.as_str()).as_bytes()).unwrap();
    }
}

fn acknowledged_use_survives_kill() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        for is_alone in [false, true] {
            use_and_be_killed(&TemporaryStore::of(engine), is_alone);
        }
    }
}

fn use_and_be_killed(place: &TemporaryStore, is_alone: bool) {
    let url = place.url("clock=manual&idle_timeout=10s");
    for round in 0..times(8, 50) {
        let store = Store::open(&url).unwrap();
        let [used, unused] = [0, 1].map(|_| store.create(b"hello", &PLAIN).unwrap().0);
        store.advance_clock(6000).unwrap();
        // Either another process has the store open all the time, or it is opened again after all
        // have died.
        let kept = (!is_alone).then(|| store.clone());
        drop(store);
        let mut child = part("lmdb_crash::get_once", &[&url, used.as_str()]).spawn().unwrap();
        assert_eq!(first_line(&mut child), "done");
        kill(child);
        let store = kept.unwrap_or_else(|| Store::open(&url).unwrap());
        let lives = |sid: &sss::Sid| look(&store, sid.as_str()).is_some();
        store.advance_clock(4000).unwrap();
        assert!(lives(&used) && !lives(&unused), "{url}, round {round}: the use was lost");
        store.advance_clock(5999).unwrap();
        assert!(lives(&used), "{url}, round {round}: the use counts from its own time");
        store.advance_clock(1).unwrap();
        assert!(!lives(&used), "{url}, round {round}: and no longer");
    }
}

/// The part: reads a session, says so, and waits to be killed.
fn get_once(args: &[String]) {
    let store = Store::open(&args[0]).unwrap();
    store.get(&args[1], Access::Slide).unwrap();
    stdout().write_all(b"done\n").unwrap();
    stdin().read_to_end(&mut Vec::new()).unwrap();
}
