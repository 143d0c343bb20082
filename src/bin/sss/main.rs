//! The command `sss`: inspects and maintains a store that its servers have open, or had. It follows
//! the store's own settings and never shows an id, which it does not know.

mod args;
mod output;
mod report;

use std::process::ExitCode;

use sss::{Error, Store};

use args::{Command, StoreArgs, UserArgs};

const FAILURE: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    match args::parse() {
        Ok(cli) => run(cli.command),
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            output::write_error(text.strip_prefix("error: ").unwrap_or(&text));
            ExitCode::from(USAGE)
        }
        Err(help) => print(&help.render().to_string()),
    }
}

fn run(command: Command) -> ExitCode {
    match execute(command) {
        Ok(Outcome::Text(text)) => print(&text),
        Ok(Outcome::Damage(findings)) => {
            findings.iter().for_each(|finding| output::write_error(finding));
            ExitCode::from(FAILURE)
        }
        Err(error) => {
            output::write_error(error.message());
            ExitCode::from(FAILURE)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match output::write(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::write_error(&format!("cannot write to standard output: {error}"));
            ExitCode::from(FAILURE)
        }
    }
}

enum Outcome {
    Text(String),
    /// What `check` found, a line each.
    Damage(Vec<String>),
}

fn execute(command: Command) -> Result<Outcome, Error> {
    let text = match command {
        Command::Stats { store, prometheus } => {
            let stats = open(&store)?.stats()?;
            if prometheus { report::prometheus(&stats) } else { report::stats(&stats, store.json) }
        }
        Command::Sweep { store, max } => {
            report::count("removed", open(&store)?.sweep(max.unwrap_or(u64::MAX))?, store.json)
        }
        Command::List { store, user } => report::list(&open(&store)?.list(principal(&user))?, store.json),
        Command::Revoke { store, user } => {
            report::count("revoked", open(&store)?.revoke(principal(&user), None)?, store.json)
        }
        Command::Check { store } => {
            let opened = open(&store)?;
            let findings = opened.check()?;
            if !findings.is_empty() {
                return Ok(Outcome::Damage(findings));
            }
            report::check_passed(opened.stats()?.sessions, store.json)
        }
    };
    Ok(Outcome::Text(text))
}

fn open(store: &StoreArgs) -> Result<Store, Error> {
    Store::open_existing(&store.url)
}

fn principal(user: &UserArgs) -> &[u8] {
    user.principal.as_encoded_bytes()
}
