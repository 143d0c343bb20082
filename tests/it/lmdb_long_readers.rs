//! A read of `lmdb:` that does not come to its end, as when its thread or process is stopped in the
//! middle of it: what it looks at is kept for it, so that writers find less and less room. They
//! wait for it, and at last name the process in an error.

use std::{sync::mpsc, thread, time::Duration};

use crate::common::{Engine, PLAIN, TemporaryStore, timed::timed};
use sss::{Access, ErrorKind, Store};

const ENGINES: [Engine; 2] = [Engine::Lmdb, Engine::LmdbPower];

/// Runs `work` while another thread is in the middle of a read, which ends after `work` or when
/// `longest` is over.
fn beside_a_read<T>(store: &Store, longest: Duration, work: impl FnOnce() -> T) -> T {
    let (sid, _) = store.create(b"held", &PLAIN).unwrap();
    let (begun, has_begun) = mpsc::channel();
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let held = store.read::<_, sss::Error>(&sid, Access::Peek, |payload, _| {
                begun.send(()).unwrap();
                // An error is the end of `work`, or of its patience.
                let _ = is_done.recv_timeout(longest);
                assert_eq!(payload, b"held");
                Ok(())
            });
            held.unwrap();
        });
        has_begun.recv().unwrap();
        let result = work();
        drop(done);
        result
    })
}

#[test]
fn short_read_does_not_fill_store() {
    for engine in ENGINES {
        let place = TemporaryStore::of(engine);
        let store = place.open("");
        let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
        // More than the file has room for, as long as the read keeps what it replaces.
        const PUTS: usize = (16 << 20) / 50_000 + 100;
        beside_a_read(&store, Duration::from_millis(100), || {
            for _ in 0..PUTS {
                store.put(&sid, &[b'x'; 50_000], &PLAIN).unwrap();
                let (other, _) = store.create(b"hello", &PLAIN).unwrap();
                store.delete(&other).unwrap();
            }
        });
    }
}

#[test]
fn endless_read_is_named_in_error() {
    // Side by side, because a writer waits for ten seconds before it gives up.
    thread::scope(|scope| {
        for engine in ENGINES {
            scope.spawn(move || {
                let place = TemporaryStore::of(engine);
                let store = place.open("");
                let (sid, _) = store.create(b"hello", &PLAIN).unwrap();
                let error = beside_a_read(&store, Duration::from_secs(60), || {
                    loop {
                        if let Err(error) = store.put(&sid, &[b'x'; 50_000], &PLAIN) {
                            return error;
                        }
                    }
                });
                assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
                assert!(error.message().contains(&format!("process {}", std::process::id())), "{error}");
                store.put(&sid, b"world", &PLAIN).unwrap();
            });
        }
    });
}

#[test]
fn full_store_fails_fast_during_read() {
    for engine in ENGINES {
        let place = TemporaryStore::of(engine);
        let store = place.open("max_payload=infinity");
        let error = loop {
            if let Err(error) = store.create(&[b'x'; 500_000], &PLAIN) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
        beside_a_read(&store, Duration::from_secs(60), || {
            let (result, took) = timed(|| store.create(&[b'x'; 500_000], &PLAIN));
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            // It would wait for the read for ten seconds.
            assert!(took < Duration::from_secs(3), "{took:?}");
        });
    }
}
