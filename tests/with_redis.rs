//! Runs a command with the Redis servers of the engine under test beside it, for tests in other languages:
//! `SSS_TEST_ENGINE=redis-cluster cargo test --test with_redis -- COMMAND...`. It finds in SSS_TEST_REDIS what the URLs of its
//! stores begin with: `{name}` stands for a name that each store has for itself, and more options may follow. If there is one
//! server alone, SSS_TEST_REDIS_PID is its process, for those who stop it. Without a command it does nothing.

mod common;

use std::{
    env,
    process::{Command, ExitCode},
};

use common::{Engine, Place, redis};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let Some(command) = args.next().filter(|first| !first.starts_with('-')) else { return ExitCode::SUCCESS };
    let engine = Engine::under_test();
    let mut run = Command::new(&command);
    run.args(args).env("SSS_TEST_REDIS", Place::template(engine));
    if matches!(engine, Engine::Redis | Engine::RedisUnix) {
        run.env("SSS_TEST_REDIS_PID", redis::shared().pid().to_string());
    }
    // The servers end with this process.
    let status = run.status().unwrap_or_else(|error| panic!("{command}: {error}"));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
