//! The server's secret is changed as docs/deployment.md says, while several processes read and
//! write: no session ends, nothing is an error, and in the end the old secret opens nothing.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    path::PathBuf,
    process::Child,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore, kind};
use crate::process::{ends_well, part};
use sss::{Access, ErrorKind, Sid, Store};

const WORKERS: usize = 3;
const SESSIONS: usize = 40;

suite! {
    tests: [
        secret_rotation_keeps_sessions,
    ],
    parts: [serve],
}

struct Secrets(PathBuf);

impl Secrets {
    /// The secret with this number: so many hex digits.
    fn write(&self, numbers: &[u8]) {
        let text: String = numbers.iter().map(|number| format!("{number:02x}").repeat(32) + "\n").collect();
        // As an operator should: no process reads half a file.
        let new = self.0.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        fs::rename(new, &self.0).unwrap();
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn secret_rotation_keeps_sessions() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let secrets = Secrets(place.directory().with_extension("secrets"));
        let url = place.url(&format!("secret_file={}", secrets.0.display()));
        secrets.write(&[1]);
        let store = Store::open(&url).unwrap();
        let sids: Vec<Sid> = (0..SESSIONS).map(|_| store.create(&payload(0), &PLAIN).unwrap().0).collect();
        drop(store);
        let ids = sids.iter().map(|sid| sid.as_str().to_owned()).collect::<Vec<_>>().join("\n");
        let mut workers: Vec<Child> = (0..WORKERS).map(|number| start(&url, number, &ids)).collect();
        // As in the guide: last, then in front, then alone; and each time all are restarted, one
        // after the other.
        for numbers in [&[1, 2][..], &[2, 1], &[2]] {
            if numbers == [2] {
                // Instead of waiting for the absolute timeout: what has not been written since is
                // written now.
                let store = Store::open(&url).unwrap();
                sids.iter().for_each(|sid| _ = store.put(sid, &payload(1), &PLAIN).unwrap());
            }
            secrets.write(numbers);
            for (number, worker) in workers.iter_mut().enumerate() {
                thread::sleep(Duration::from_millis(20));
                let old = std::mem::replace(worker, start(&url, number, &ids));
                println!("{engine:?}, secrets {numbers:?}: {}", end(old));
            }
        }
        workers.into_iter().for_each(|worker| drop(end(worker)));
        for (numbers, result) in [([2], None), ([1], Some(ErrorKind::Corrupt))] {
            secrets.write(&numbers);
            let store = Store::open(&url).unwrap();
            sids.iter().for_each(|sid| assert_eq!(kind(&store.get(sid, Access::Peek)), result));
        }
    }
}

fn payload(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(20)
}

fn start(url: &str, number: usize, ids: &str) -> Child {
    let mut child = part("lmdb_secrets::serve", &[url, &number.to_string(), ids]).spawn().unwrap();
    // It is up before the one in whose place it is goes.
    let output = child.stdout.as_mut().unwrap();
    let mut line = [0; 3];
    output.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"up\n");
    child
}

/// Tells it to end, and waits for that.
fn end(mut child: Child) -> String {
    drop(child.stdin.take());
    ends_well(child).trim().to_owned()
}

/// The part: reads and writes the sessions, each of which has one writer, until its input ends.
fn serve(args: &[String]) {
    let [url, number, ids] = args else { panic!("not the arguments of a worker: {args:?}") };
    let (number, sids): (usize, Vec<&str>) = (number.parse().unwrap(), ids.lines().collect());
    let store = Store::open(url).unwrap();
    stdout().write_all(b"up\n").unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            BufReader::new(stdin()).read_line(&mut String::new()).unwrap();
            is_over.store(true, Ordering::Relaxed);
        });
        let (mut rng, mut count) = (Rng(number as u64), 0);
        while !is_over.load(Ordering::Relaxed) {
            let at = rng.below(sids.len());
            let (bytes, _) = store.get(sids[at], Access::Slide).unwrap();
            assert!(bytes.len() == 160 && bytes.chunks(8).all(|chunk| chunk == &bytes[..8]));
            if at % WORKERS == number {
                count += 1;
                store.put(sids[at], &payload(count), &PLAIN).unwrap();
            }
            let (own, _) = store.create(b"own", &PLAIN).unwrap();
            let (own, _) = store.renew(&own, None, &PLAIN).unwrap();
            assert_eq!(store.get(&own, Access::Peek).unwrap().0, b"own");
            store.delete(&own).unwrap();
        }
        println!("{count} puts");
    });
}
