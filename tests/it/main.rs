//! The tests that need one process only, in one binary, a module for each subject. `cargo test
//! --test it MODULE::` runs a module; SSS_TEST_ENGINE chooses the engine of those that work on any
//! (default: memory). Tests that kill or fork processes or look at the state of a whole process are
//! in tests/processes/.

#[path = "../common/mod.rs"]
mod common;

mod abi;
mod blocking;
#[cfg(feature = "cli")]
mod cli;
mod conformance;
mod ids;
mod index;
mod layers;
mod limits;
mod linearizable;
mod lmdb_directory;
mod lmdb_long_readers;
mod model;
mod races;
mod redis_clock;
mod redis_cluster;
mod redis_cluster_faults;
mod redis_fast_read;
mod redis_faults;
mod redis_old_ids;
mod redis_revoke_all;
mod redis_sentinel;
mod redis_tls;
mod secrets;
mod store_api;
