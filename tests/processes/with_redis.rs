//! Runs a command beside the Redis servers of the engine under test, for tests in other languages:
//! `SSS_TEST_ENGINE=redis-cluster cargo test --test processes -- --with-redis COMMAND...`. The
//! command finds in SSS_TEST_REDIS what the URLs of its stores begin with: `{name}` stands for a
//! name that is different for each store, and more options may follow. If there is a single server,
//! SSS_TEST_REDIS_PID is its process, for tests that stop it.

use std::process::{Command, ExitCode};

use crate::common::{Engine, TemporaryStore, redis};

pub fn run(command: &[String]) -> ExitCode {
    let [program, args @ ..] = command else { panic!("--with-redis needs a command") };
    let engine = Engine::under_test();
    let mut run = Command::new(program);
    run.args(args).env("SSS_TEST_REDIS", TemporaryStore::named(engine, "{name}".to_owned()).url(""));
    if matches!(engine, Engine::Redis | Engine::RedisUnix) {
        run.env("SSS_TEST_REDIS_PID", redis::shared().pid().to_string());
    }
    // The servers end with this process.
    let status = run.status().unwrap_or_else(|error| panic!("{program}: {error}"));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
