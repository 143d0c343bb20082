//! The command `sss`: inspects and maintains a store that its servers have open, or had. It follows
//! the store's own settings and never shows an id, which it does not know.

mod args;
mod dialog;
mod manual;
mod output;
mod report;
mod text;
mod watch;

use std::{
    io,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
};

use sss::{Entry, Error, Ref, Store};

use args::{Command, RevokeArgs, StoreArgs};
use dialog::with_progress;
use output::Format;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

/// `sweep` looks at the progress after so many sessions.
const SWEPT_AT_ONCE: u64 = 10_000;

/// Why a command has not done what it was asked.
enum Failure {
    Usage(clap::Error),
    Store(Error),
    Output(io::Error),
    /// Its reason has been told.
    Told,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

fn main() -> ExitCode {
    let done = args::parse().map_err(Failure::Usage).and_then(|cli| execute(cli.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // It may also be the text of `--help`.
        Err(Failure::Usage(help)) if !help.use_stderr() => match output::write(help.render().to_string().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(Failure::Output(error)),
        },
        Err(failure) => fail(failure),
    }
}

fn fail(failure: Failure) -> ExitCode {
    match failure {
        Failure::Usage(error) => {
            let text = error.render().to_string();
            output::write_error(text.strip_prefix("error: ").unwrap_or(&text));
            return ExitCode::from(USAGE);
        }
        Failure::Store(error) => output::write_error(error.message()),
        Failure::Output(error) => output::write_error(&format!("cannot write to standard output: {error}")),
        Failure::Told => {}
    }
    ExitCode::from(FAILURE)
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Stats { store: args, prometheus } => {
            let numbers = report::numbers(&open(&args)?.stats()?, &args.url);
            if prometheus {
                return print(report::prometheus(&numbers));
            }
            print(report::stats(&numbers, Format::new(args.json))?)
        }
        Command::Watch { store: args, count } => {
            watch::watch(&open(&args)?, &args.url, count.unwrap_or(u64::MAX), Format::new(args.json))
        }
        Command::Sweep { store: args, max } => {
            let removed = sweep(&args, max.unwrap_or(u64::MAX))?;
            print(report::count("removed", removed, Format::new(args.json))?)
        }
        Command::List { store: args, principal } => {
            let entries = open(&args)?.list(principal.as_encoded_bytes())?;
            print(report::list(&entries, Format::new(args.json))?)
        }
        Command::Revoke { store: args, which } => {
            // Before the store is opened, which may take long.
            if which.all && !which.yes && !dialog::can_ask() {
                return Err(Failure::Usage(args::usage_error(
                    "--all ends every session of the store: without a terminal to ask on it needs --yes",
                )));
            }
            let revoked = revoke(&open(&args)?, &args.url, &which)?;
            print(report::count("revoked", revoked, Format::new(args.json))?)
        }
        Command::Check { store: args } => {
            let (findings, sessions) = with_progress(|| "checking".to_owned(), || check(&args))?;
            print(report::check(&findings, sessions, Format::new(args.json))?)?;
            if findings.is_empty() { Ok(()) } else { Err(Failure::Told) }
        }
        Command::Completions { shell } => Ok(output::write(&manual::completions(shell))?),
        Command::Man => Ok(output::write(&manual::page()?)?),
    }
}

fn print(text: String) -> Result<(), Failure> {
    Ok(output::write(text.as_bytes())?)
}

fn open(store: &StoreArgs) -> Result<Store, Error> {
    Store::open_existing(&store.url)
}

fn sweep(args: &StoreArgs, max: u64) -> Result<u64, Error> {
    let removed = AtomicU64::new(0);
    let describe = || format!("sweeping: {} removed", report::sessions(removed.load(Ordering::Relaxed)));
    with_progress(describe, || {
        let store = open(args)?;
        loop {
            let wanted = (max - removed.load(Ordering::Relaxed)).min(SWEPT_AT_ONCE);
            let count = store.sweep(wanted)?;
            let sum = removed.fetch_add(count, Ordering::Relaxed) + count;
            if count < wanted || sum >= max {
                return Ok(sum);
            }
        }
    })
}

/// Opening the store is a part of it: that checks the file if no server has it open.
fn check(args: &StoreArgs) -> Result<(Vec<String>, u64), Error> {
    let store = open(args)?;
    Ok((store.check()?, store.stats()?.sessions))
}

fn revoke(store: &Store, url: &str, which: &RevokeArgs) -> Result<u64, Failure> {
    let principal = which.principal.as_ref().map(|principal| principal.as_encoded_bytes());
    match (principal, &which.reference) {
        (Some(principal), None) => Ok(store.revoke(principal, None)?),
        (None, Some(reference)) => {
            store.delete_ref(&reference.parse()?, None)?;
            Ok(1)
        }
        (Some(principal), Some(digits)) => {
            let reference = digits.parse().or_else(|_| find(&store.list(principal)?, digits))?;
            store.delete_ref(&reference, Some(principal))?;
            Ok(1)
        }
        (None, None) => revoke_all(store, url, which.yes),
    }
}

/// The only session of a list whose reference begins with these digits.
fn find(entries: &[Entry], digits: &str) -> Result<Ref, Failure> {
    let mut references =
        entries.iter().map(|entry| entry.reference).filter(|reference| reference.to_string().starts_with(digits));
    match (references.next(), references.count()) {
        (Some(reference), 0) => Ok(reference),
        (None, _) => Err(told("the principal has no session with this reference")),
        (Some(_), others) => {
            Err(told(&format!("the references of {} sessions begin with these digits: give more", others + 1)))
        }
    }
}

/// Tells why a command fails.
fn told(reason: &str) -> Failure {
    output::write_error(reason);
    Failure::Told
}

fn revoke_all(store: &Store, url: &str, is_confirmed: bool) -> Result<u64, Failure> {
    let count = || store.stats().map(|stats| report::sessions(stats.sessions));
    if !is_confirmed {
        let question = format!("This ends every session of the store, which has {}. Continue?", count()?);
        if !dialog::confirms(&question) {
            return Err(told("nothing was revoked"));
        }
    }
    // The sessions of redis: are counted one by one.
    let left = || if report::counts_all_processes(url) { count().ok() } else { None };
    let describe = || left().map_or("revoking".to_owned(), |left| format!("revoking: {left} left"));
    Ok(with_progress(describe, || store.revoke_all())?)
}
