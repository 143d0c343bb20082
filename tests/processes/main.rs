//! The tests that are made of several processes, run one by one: they kill and fork processes,
//! damage their files, and look at the state of a whole process. `cargo test --test processes
//! MODULE::` runs a module.
//!
//! `cargo test --test processes -- --with-redis COMMAND...` runs a command beside Redis servers:
//! see with_redis.rs.

/// The tests of a module, and the parts that they start as processes of their own (see process.rs):
/// functions without arguments, and functions that take the arguments of the process.
macro_rules! suite {
    (tests: [$($test:path),* $(,)?], parts: [$($part:path),* $(,)?] $(,)?) => {
        pub const SUITE: crate::process::Suite = crate::process::Suite {
            module: module_path!(),
            tests: &[$((stringify!($test), $test)),*],
            parts: &[$((stringify!($part), $part)),*],
        };
    };
}

#[allow(dead_code, reason = "tests/it uses all of it; what is unused there, the compiler names")]
#[path = "../common/mod.rs"]
mod common;
mod process;

mod global;
mod lmdb_crash;
mod lmdb_damage;
mod lmdb_fork;
mod lmdb_full;
mod lmdb_instructions;
mod lmdb_locks;
mod lmdb_power;
mod lmdb_readers;
mod lmdb_revoke_all;
mod lmdb_secrets;
mod memory_release;
mod redis_fork;
mod with_redis;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [flag, command @ ..] = &args[..]
        && flag == "--with-redis"
    {
        return with_redis::run(command);
    }
    process::run(
        &args,
        &[
            global::SUITE,
            lmdb_crash::SUITE,
            lmdb_damage::SUITE,
            lmdb_fork::SUITE,
            lmdb_full::SUITE,
            lmdb_instructions::SUITE,
            lmdb_locks::SUITE,
            lmdb_power::SUITE,
            lmdb_readers::SUITE,
            lmdb_revoke_all::SUITE,
            lmdb_secrets::SUITE,
            memory_release::SUITE,
            redis_fork::SUITE,
        ],
    )
}
