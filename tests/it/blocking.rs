//! `Store::may_block`: the bindings use it to decide where to release a lock or a scheduler. Their
//! own tests show that it is true: they stop another process in the middle of a write.

use crate::common::{Engine, TemporaryStore};
use sss::Store;

#[test]
fn lmdb_blocks_writes_and_power_reads() {
    for (engine, reads, writes) in
        [(Engine::Memory, false, false), (Engine::Lmdb, false, true), (Engine::LmdbPower, true, true)]
    {
        let blocking = TemporaryStore::of(engine).open("").may_block();
        assert_eq!((blocking.reads, blocking.writes), (reads, writes), "{engine:?}");
    }
}

#[test]
fn redis_blocks_reads_and_writes() {
    // No server listens there, and none is needed.
    let store = Store::open("redis://127.0.0.1:1").unwrap();
    assert!(store.may_block().reads && store.may_block().writes);
}

#[test]
fn reopened_store_keeps_blocking() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = TemporaryStore::of(engine);
        let blocking = place.open("").may_block();
        let url = format!("lmdb:{}", place.directory().display());
        assert_eq!(Store::open_existing(&url).unwrap().may_block(), blocking, "{engine:?}");
    }
}
