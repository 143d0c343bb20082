//! Every answer of a store under several threads is one that a single thread could have got: some
//! order of the calls that agrees with real time gives exactly these answers. Also: what is gone
//! stays gone in very many raced rounds.
//!
//! SSS_LINEARIZABLE_ROUNDS makes the run longer (default: what takes some seconds),
//! SSS_LINEARIZABLE_SEED starts it elsewhere, SSS_LINEARIZABLE_ATOMIC=1 asks more than the
//! contract: that `list` and `revoke` meet all their sessions at one moment. SSS_RACE_ROUNDS is for
//! the raced rounds: 1000000 is the long run.

mod checker;
mod checker_tests;
mod faults;
mod history;
mod race_rounds;
mod record;
mod regressions;
mod spec;

use crate::common::from_env;
use faults::Fault;
use record::Plan;
use spec::Wide;

const ROUNDS: u64 = 300;

fn plan(seed: u64) -> Plan {
    let threads = 2 + (seed % 3) as usize;
    // What the contract promises; the other one is there to see how often they are not.
    let wide = if from_env("SSS_LINEARIZABLE_ATOMIC", 0) == 1 { Wide::Atomic } else { Wide::OneByOne };
    Plan { seed, threads, calls: 90 / threads, sealed: seed % 5 == 4, limited: seed % 4 == 3, wide, fault: None }
}

#[test]
fn random_histories_are_linearizable() {
    let first = from_env("SSS_LINEARIZABLE_SEED", 1);
    for seed in first..first + from_env("SSS_LINEARIZABLE_ROUNDS", ROUNDS) {
        let plan = plan(seed);
        let (rules, history) = record::run(&plan);
        if let Err(why) = checker::check(&rules, &history) {
            panic!("{plan}\n{why}");
        }
    }
}

#[test]
fn injected_faults_are_detected() {
    const ENOUGH: u64 = 300;
    for fault in Fault::ALL {
        let seen = (1..=ENOUGH).find(|&seed| {
            let (rules, history) = record::run(&Plan { fault: Some(fault), ..plan(seed) });
            checker::check(&rules, &history).is_err()
        });
        let rounds = seen.unwrap_or_else(|| panic!("{fault:?} was not seen in {ENOUGH} rounds"));
        println!("{fault:?}: seen in round {rounds}");
    }
}
