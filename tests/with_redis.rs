//! Runs a command with the Redis servers of the engine under test beside it, for tests in other languages:
//! `SSS_TEST_ENGINE=redis-cluster cargo test --test with_redis -- COMMAND...`. It finds in SSS_TEST_REDIS what the URLs of its
//! stores begin with: `{name}` stands for a name that each store has for itself, and more options may follow. Without a
//! command it does nothing.

mod common;

use std::{
    env,
    process::{Command, ExitCode},
};

use common::{Engine, Place};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(command) = args.next().filter(|first| !first.starts_with('-')) else { return ExitCode::SUCCESS };
    // The servers end with this process.
    let status = Command::new(&command)
        .args(args)
        .env("SSS_TEST_REDIS", Place::template(Engine::under_test()))
        .status()
        .unwrap_or_else(|error| panic!("{command}: {error}"));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
