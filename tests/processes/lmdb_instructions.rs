//! A process that uses an `lmdb:` store is killed at any instruction of a call: it is run one
//! instruction at a time (ptrace), killed, and another process looks at the store. What the call
//! does has happened or has not, nothing else is touched, and the store goes on. `make torture`
//! kills at many more instructions.
//!
//! On x86-64 only: elsewhere a loop of load-exclusive and store-exclusive never ends one
//! instruction at a time.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use crate::common::{Engine, PLAIN, Rng, TemporaryStore};
use crate::process::{part, seed, times};
use sss::{Access, ErrorKind, Options, Sid, Store};

suite! {
    tests: [killed_call_is_atomic, killed_durable_call_is_atomic],
    parts: [call_once],
}

const CALLS: [&str; 8] = ["create", "put", "renew", "delete", "get", "touch_ref", "delete_ref", "revoke_all"];
const OLD: &[u8] = &[b'o'; 200];
const NEW: &[u8] = &[b'n'; 300];
/// Far more than a write takes on a busy machine, if it does not wait for a dead process.
const NEXT_WRITE: Duration = Duration::from_secs(20);

fn stepped() -> Options<'static> {
    PLAIN.principal("stepped")
}

/// The exit code of a process that may not be traced.
const NOT_TRACED: i32 = 77;

/// The part: stops, makes one call, and stops again.
fn call_once(args: &[String]) {
    let [url, sid, call] = args else { panic!("not the arguments: {args:?}") };
    let store = Store::open(url).unwrap();
    let reference = store.reference(sid).unwrap();
    // SAFETY: asks the parent to trace this process, which it does.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
        std::process::exit(NOT_TRACED);
    }
    // SAFETY: stops this process.
    unsafe { libc::raise(libc::SIGSTOP) };
    match call.as_str() {
        "create" => drop(store.create(NEW, &stepped()).unwrap()),
        "put" => drop(store.put(sid, NEW, &PLAIN).unwrap()),
        "renew" => drop(store.renew(sid, None, &PLAIN).unwrap()),
        "delete" => store.delete(sid).unwrap(),
        "get" => drop(store.get(sid, Access::Slide).unwrap()),
        "touch_ref" => drop(store.touch_ref(&reference, Access::Slide).unwrap()),
        "delete_ref" => store.delete_ref(&reference, Some(b"stepped")).unwrap(),
        "revoke_all" => assert_eq!(store.revoke_all().unwrap(), 21),
        _ => unreachable!(),
    }
    // SAFETY: as above.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// What came of a call whose process was killed.
enum Killed {
    Within,
    /// After so many instructions, when it had returned.
    Returned(u64),
    NotTraced,
}

/// Runs a call for so many instructions and kills its process.
#[allow(clippy::zombie_processes)] // `wait` below is waitpid, which can also tell that it stopped.
fn run_and_kill(url: &str, sid: &Sid, call: &str, instructions: u64) -> Killed {
    let child = part("lmdb_instructions::call_once", &[url, sid.as_str(), call]).spawn().unwrap();
    let pid = child.id() as libc::pid_t;
    let wait = || {
        let mut status = 0;
        // SAFETY: a child of this process, which only this function waits for.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        status
    };
    let is_stopped_by = |status, signal| libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == signal;
    let status = wait();
    if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == NOT_TRACED {
        return Killed::NotTraced;
    }
    assert!(is_stopped_by(status, libc::SIGSTOP), "the process stops before its call: {status:#x}");
    let mut killed = Killed::Within;
    for step in 0..instructions {
        // SAFETY: a stopped process that this thread traces.
        assert_eq!(unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, 0) }, 0);
        let status = wait();
        if is_stopped_by(status, libc::SIGSTOP) {
            killed = Killed::Returned(step);
            break;
        }
        assert!(is_stopped_by(status, libc::SIGTRAP), "{call}, instruction {step}: status {status:#x}");
    }
    // SAFETY: a child of this process that was not waited for to its end.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    while !libc::WIFSIGNALED(wait()) {}
    killed
}

fn killed_call_is_atomic() {
    kill_calls(Engine::Lmdb, times(14, 700));
}

fn killed_durable_call_is_atomic() {
    kill_calls(Engine::LmdbPower, times(3, 150));
}

fn kill_calls(engine: Engine, kills: u64) {
    if !cfg!(target_arch = "x86_64") {
        return println!("SKIPPED: not x86-64");
    }
    let seed = seed();
    let mut rng = Rng(seed);
    for call in CALLS {
        let place = TemporaryStore::of(engine);
        let url = place.url("max_bytes=4MiB&seal=off&timeout=1d&idle_timeout=1d");
        let store = Store::open(&url).unwrap();
        let create_others =
            || -> Vec<Sid> { (0..20).map(|i| store.create(&[i; 100], &PLAIN.principal("other")).unwrap().0).collect() };
        let mut others = create_others();
        let (sid, _) = store.create(OLD, &stepped()).unwrap();
        let all = match run_and_kill(&url, &sid, call, u64::MAX) {
            Killed::Returned(instructions) => instructions,
            Killed::NotTraced => return println!("SKIPPED: this process may not trace others"),
            Killed::Within => unreachable!(),
        };
        verify(&store, &others, &sid, call, true, "returned");
        let mut done = 0;
        // It is many transactions.
        let kills = if call == "revoke_all" { kills.div_ceil(4) } else { kills };
        for kill in 0..kills {
            // Half of them anywhere, and half near the end, where the commit is.
            let from = if kill % 2 == 0 { 0 } else { all - all / 8 };
            let at = from + rng.next() % (all - from);
            let context = format!("SSS_TEST_SEED={seed}: {engine:?} {call}, killed at {at} of {all}");
            store.revoke(b"stepped", None).unwrap_or_else(|error| panic!("{context}: {error}"));
            if store.get(&others[0], Access::Peek).is_err() {
                others = create_others();
            }
            let (sid, _) = store.create(OLD, &stepped()).unwrap_or_else(|error| panic!("{context}: {error}"));
            let has_returned = matches!(run_and_kill(&url, &sid, call, at), Killed::Returned(_));
            done += u64::from(verify(&store, &others, &sid, call, has_returned, &context));
        }
        println!("{engine:?}: {call}: killed {kills} times in {all} instructions; done {done} times");
        drop(store);
        // Alone: this checks the structure of the file.
        assert_eq!(Store::open(&url).unwrap().check().unwrap(), Vec::<String>::new());
    }
}

/// Whether the call has happened. It must have if it has returned.
fn verify(store: &Store, others: &[Sid], sid: &Sid, call: &str, has_returned: bool, context: &str) -> bool {
    let begun = Instant::now();
    let next = store.create(b"next", &PLAIN).unwrap_or_else(|error| panic!("{context}: {error}")).0;
    assert!(begun.elapsed() < NEXT_WRITE, "{context}: the next write waits {:?}", begun.elapsed());
    store.delete(&next).unwrap_or_else(|error| panic!("{context}: {error}"));
    let read = |sid| match store.get(sid, Access::Slide) {
        Ok((payload, _)) => Some(payload),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{context}: {error}"),
    };
    let found = read(sid);
    // All of them or none.
    let others_end = call == "revoke_all" && found.is_none();
    for (i, other) in others.iter().enumerate() {
        let expected = (!others_end).then(|| vec![i as u8; 100]);
        assert!(read(other) == expected, "{context}: another session has changed");
    }
    assert_eq!(store.list(b"other").unwrap().len(), if others_end { 0 } else { others.len() }, "{context}");
    let listed = store.list(b"stepped").unwrap().len();
    let happened = match (call, found.as_deref(), listed) {
        (_, Some(OLD), 1) => has_returned && matches!(call, "get" | "touch_ref"),
        ("create", Some(OLD), 2) | ("put", Some(NEW), 1) | ("renew", None, 1) => true,
        ("delete" | "delete_ref" | "revoke_all", None, 0) => true,
        state => panic!("{context}: half a call has happened: {state:?}"),
    };
    assert!(happened || !has_returned, "{context}: an acknowledged call is lost");
    assert_eq!(store.check().unwrap(), Vec::<String>::new(), "{context}");
    happened
}
