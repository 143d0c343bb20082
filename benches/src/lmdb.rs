//! L1 to L6: `lmdb:` against Redis on a Unix socket, and against itself with more processes.
//! Sessions are sealed, in a directory on this machine's disk. The other processes run this binary.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sss::{Access, Options, Store};

use crate::{
    bare_lmdb::BareLmdb,
    competitors::Sss,
    facts::Facts,
    remote::{Directory, Server},
    speed::Filled,
    workload::{Batches, Id, Middle, Race, Rng, Scale, median, payload},
};

const PAYLOAD: usize = 256;
/// The stored length: header, seal and payload (docs/FORMAT.md).
const RECORD: usize = 56 + 33 + PAYLOAD;
/// The idle timeout of L6, and the number of uses.
const IDLE_S: u64 = 600;
const WRITERS: usize = 8;

/// The file size for this many sessions, with the space that LMDB leaves free.
fn room(n: usize) -> usize {
    (n * 1100).next_multiple_of(1 << 20).max(64 << 20)
}

fn url(directory: &Path, n: usize, options: &str) -> String {
    format!("lmdb:{}?max_bytes={}&timeout=3h&idle_timeout=1h{options}", directory.display(), room(n))
}

/// L1, L2, L4 and L5, on one large store.
pub fn large(scale: Scale, facts: &mut Facts, rows: &[&str]) {
    let directory = Directory::new().expect("a directory for the store");
    let url_of = |name, n| url(&directory.0.join(name), n, "");
    let url = url_of("store", scale.n);
    let wished = Rng::new(11).ids(scale.n);
    let mut sss = Filled::new(Sss::open_url(&url), &wished, PAYLOAD);
    // Fits the caches: the difference to the large store is memory latency.
    let few = scale.n / 1000;
    let mut small = Filled::new(Sss::open_url(&url_of("small", few)), &wished[..few], PAYLOAD);

    if rows.contains(&"l1") || rows.contains(&"l2") {
        let ids = Rng::new(9).ids((scale.n / 10).max(1000));
        let bare = BareLmdb::open(&directory.0.join("bare"), room(scale.n));
        let mut bare = Filled::new(bare, &wished, RECORD);
        match Server::redis(&directory.0) {
            Ok(redis) => {
                redis.fill(&ids).expect("the server takes the sessions");
                against_redis(scale, facts, rows, [&mut sss, &mut small], &mut bare, &redis, &ids);
            }
            Err(error) => eprintln!("L1 and L2 need redis-server: {error}"),
        }
    }
    if rows.contains(&"l5") {
        let store = &sss.store.0;
        let mut times: Vec<f64> = (0..1000).map(|_| timed(|| assert_eq!(store.sweep(1000).unwrap(), 0))).collect();
        facts.set("l5.sss_ns", median(&mut times));
    }
    if rows.contains(&"l4") {
        let ids = directory.0.join("ids");
        fs::write(&ids, sss.ids.concat()).expect("the ids are written");
        let time = Duration::from_millis(if scale.quick { 300 } else { 1000 });
        let mut race = Race::default();
        race.runner("one", || rate("gets", 1, &url, &ids, time));
        race.runner("two", || rate("gets", 2, &url, &ids, time));
        let outcome = race.run(scale.rounds);
        facts.set_middle("l4.times", outcome.compare("two", "one", |two, one| two / one));
        facts.set_middle("l4.one_mops", outcome.middle("one"));
        facts.set_middle("l4.two_mops", outcome.middle("two"));
    }
}

fn against_redis(
    scale: Scale,
    facts: &mut Facts,
    rows: &[&str],
    stores: [&mut Filled<Sss>; 2],
    bare: &mut Filled<BareLmdb>,
    redis: &Server,
    ids: &[Id],
) {
    let [sss, small] = stores;
    let calls = if scale.quick { 1000 } else { 4000 };
    for row in ["l1", "l2"].into_iter().filter(|row| rows.contains(row)) {
        let puts = row == "l2";
        let mut race = Race::default();
        for (name, store) in [("sss", &mut *sss), ("small", &mut *small)] {
            let mut seed = 0;
            race.runner(name, move || {
                seed += 1;
                if puts { store.put(scale.batches / 4, seed) } else { store.get(scale.batches, seed) }
            });
        }
        let (bare, mut seed) = (&mut *bare, 0);
        race.runner("bare", move || {
            seed += 1;
            if puts { bare.put(scale.batches / 4, seed) } else { bare.get(scale.batches, seed) }
        });
        for (name, together) in [("redis", true), ("redis_free", false)] {
            let mut connection = redis.connect().expect("a connection");
            let mut drawn = Batches::new(ids, 9);
            let bytes = payload(PAYLOAD, 1);
            race.runner(name, move || {
                redis.place(together);
                let mut times = Vec::with_capacity(calls);
                while times.len() < calls {
                    for id in drawn.draw() {
                        times.push(timed(|| if puts { connection.set(id, &bytes) } else { connection.get(id) }));
                    }
                }
                redis.place(false);
                median(&mut times)
            });
        }
        let outcome = race.run(scale.rounds);
        facts.set_outcome(row, "ns", &outcome);
        facts.set_middle(&format!("{row}.redis_times"), outcome.compare("redis", "sss", |redis, sss| redis / sss));
        facts.set_middle(
            &format!("{row}.redis_free_times"),
            outcome.compare("redis_free", "sss", |redis, sss| redis / sss),
        );
    }
}

/// L3: acknowledged puts that survive a power cut, by one writer and by eight in two processes.
pub fn group_commit(scale: Scale, facts: &mut Facts) {
    let directory = Directory::new().expect("a directory for the store");
    let n = 10_000;
    let url = url(&directory.0.join("store"), n, "&durability=power");
    let store = Store::open(&url).expect("the store opens");
    let (count, bytes) = (if scale.quick { 200 } else { 1000 }, payload(PAYLOAD, 1));
    let ids: Vec<Id> = (0..count).map(|_| *store.create(&bytes, &Options::default()).unwrap().0.as_bytes()).collect();
    let file = directory.0.join("ids");
    fs::write(&file, ids.concat()).expect("the ids are written");
    let time = Duration::from_millis(if scale.quick { 500 } else { 1500 });
    let mut race = Race::default();
    race.runner("one", || rate("writer", 1, &url, &file, time));
    race.runner("eight", || rate("writers", 2, &url, &file, time));
    let outcome = race.run(scale.rounds.min(7));
    facts.set_middle("l3.times", outcome.compare("eight", "one", |eight, one| eight / one));
    for name in ["one", "eight"] {
        // In thousands per second.
        facts.set_middle(&format!("l3.{name}_kops"), scaled(outcome.middle(name), 1e3));
    }
}

/// L6: the share of uses that write, counted by LMDB's transaction number, with one use per session
/// and second.
pub fn share_of_writes(scale: Scale, facts: &mut Facts) {
    let n = if scale.quick { 200 } else { 1000 };
    for (name, options) in [("process", ""), ("power", "&durability=power")] {
        let directory = Directory::new().expect("a directory for the store");
        let path = directory.0.join("store");
        let url =
            format!("lmdb:{}?max_bytes=64MiB&timeout=3h&idle_timeout={IDLE_S}s&clock=manual{options}", path.display());
        let store = Store::open(&url).expect("the store opens");
        let create = || *store.create(&payload(PAYLOAD, 1), &Options::default()).unwrap().0.as_bytes();
        let ids: Vec<Id> = (0..n).map(|_| create()).collect();
        let before = transactions(&path);
        for _ in 0..IDLE_S {
            store.advance_clock(1000).unwrap();
            for id in &ids {
                store.read::<_, sss::Error>(id, Access::Slide, |_, _| Ok(())).unwrap();
            }
        }
        let share = (transactions(&path) - before) as f64 / (IDLE_S as f64 * n as f64);
        facts.set(&format!("l6.{name}_percent"), share * 100.0);
    }
}

/// The number of the last transaction, as the newer one of the two meta pages has it.
fn transactions(directory: &Path) -> u64 {
    /// Behind the page's head (16): magic, version, address, size of the map, two tables (48 each),
    /// last page.
    const AT: u64 = 16 + 4 + 4 + 8 + 8 + 2 * 48 + 8;
    let file = fs::File::open(directory.join("data.mdb")).expect("the store's file");
    let of_page = |page: u64| {
        let mut number = [0; 8];
        file.read_exact_at(&mut number, page * 4096 + AT).expect("a meta page");
        u64::from_ne_bytes(number)
    };
    of_page(0).max(of_page(1))
}

/// Millions of operations per second of all the processes together.
fn rate(what: &str, processes: usize, url: &str, ids: &Path, time: Duration) -> f64 {
    let mut children: Vec<Worker> = (0..processes).map(|i| Worker::start(what, i, url, ids, time)).collect();
    children.iter_mut().for_each(Worker::wait_until_ready);
    children.iter_mut().for_each(Worker::go);
    children.iter_mut().map(|child| child.done()).sum::<f64>() / time.as_secs_f64() / 1e6
}

/// A process that opens the store, reports that, and works for a given time on request.
struct Worker {
    process: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Worker {
    fn start(what: &str, seed: usize, url: &str, ids: &Path, time: Duration) -> Worker {
        let mut command = Command::new(std::env::current_exe().expect("the path of this binary"));
        command.args(["worker", what, &seed.to_string(), url]).arg(ids).arg(time.as_millis().to_string());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child starts");
        let says = BufReader::new(process.stdout.take().expect("its output"));
        Worker { process, says }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("the child speaks");
        line.trim().to_owned()
    }

    fn wait_until_ready(&mut self) {
        assert_eq!(self.line(), "ready");
    }

    fn go(&mut self) {
        self.process.stdin.as_mut().expect("its input").write_all(b"go\n").expect("the child listens");
    }

    /// The number of operations that it completed.
    fn done(&mut self) -> f64 {
        let done = self.line().parse().expect("a number of operations");
        self.process.wait().expect("the child ends");
        done
    }
}

/// What a worker does.
pub fn work(args: &[String]) {
    let [what, seed, url, ids, time] = args else { panic!("worker WHAT SEED URL IDS MILLISECONDS") };
    let ids = fs::read(PathBuf::from(ids)).expect("the ids");
    let ids: Vec<Id> = ids.chunks_exact(128).map(|id| id.try_into().expect("128 bytes")).collect();
    let (seed, time): (u64, u64) = (seed.parse().expect("a seed"), time.parse().expect("milliseconds"));
    let store = Store::open(url).expect("the store opens");
    if what == "gets" {
        // Maps the pages into this process before the measurement.
        for id in &ids {
            store.read::<_, sss::Error>(id, Access::Peek, |_, _| Ok(())).expect("a living session");
        }
    }
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("the word to go");
    let end = Instant::now() + Duration::from_millis(time);
    let threads = match what.as_str() {
        "writers" => WRITERS as u64 / 2,
        _ => 1,
    };
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let (store, ids) = (&store, &ids);
                scope.spawn(move || match what.as_str() {
                    "gets" => gets(store, ids, seed, end),
                    _ => puts(store, ids, seed * 10 + thread, end),
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends")).sum()
    });
    println!("{done}");
}

fn gets(store: &Store, ids: &[Id], seed: u64, end: Instant) -> u64 {
    let (mut drawn, mut done, mut out) = (Batches::new(ids, seed), 0, [0; PAYLOAD]);
    while Instant::now() < end {
        for id in drawn.draw() {
            store
                .read::<_, sss::Error>(id, Access::Slide, |payload, _| {
                    out.copy_from_slice(payload);
                    Ok(())
                })
                .expect("a living session");
            done += 1;
        }
    }
    done
}

fn puts(store: &Store, ids: &[Id], seed: u64, end: Instant) -> u64 {
    let (mut rng, mut done, bytes) = (Rng::new(seed), 0, payload(PAYLOAD, 1));
    while Instant::now() < end {
        store.put(ids[rng.below(ids.len())], &bytes, &Options::default()).expect("a living session");
        done += 1;
    }
    done
}

fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_nanos() as f64
}

fn scaled(middle: Middle, by: f64) -> Middle {
    Middle { median: middle.median * by, min: middle.min * by, max: middle.max * by }
}
