//! `Store::waits`: the bindings ask it where to let go of a lock or a scheduler. What it says is shown to be true by their own
//! tests, which stop another process in the middle of a write.

mod common;

use common::{Engine, Place};
use sss::{Blocking, Store};

#[test]
fn writes_to_lmdb_wait_and_with_durability_power_reads_as_well() {
    for (engine, reads, writes) in
        [(Engine::Memory, false, false), (Engine::Lmdb, false, true), (Engine::LmdbPower, true, true)]
    {
        assert_eq!(Place::of(engine).open("").may_block(), Blocking { reads, writes }, "{engine:?}");
    }
}

#[test]
fn everything_waits_for_redis() {
    // Nobody listens there, and nobody needs to.
    let store = Store::open("redis://127.0.0.1:1").unwrap();
    assert_eq!(store.may_block(), Blocking { reads: true, writes: true });
}

#[test]
fn a_store_opened_as_it_was_used_last_waits_as_it_did_then() {
    for engine in [Engine::Lmdb, Engine::LmdbPower] {
        let place = Place::of(engine);
        let waits = place.open("").may_block();
        let url = format!("lmdb:{}", place.directory().display());
        assert_eq!(Store::open_existing(&url).unwrap().may_block(), waits, "{engine:?}");
    }
}
