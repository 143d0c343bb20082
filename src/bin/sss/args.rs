//! The command line as clap parses it. Usage errors must not show a store's URL, which may contain
//! a password.

use std::ffi::OsString;

use clap::{
    Args, Parser, Subcommand,
    error::{ContextKind, ContextValue},
};

/// Inspect and maintain a session store from outside of its servers.
#[derive(Parser)]
#[command(name = "sss", version, after_help = AFTER_HELP, arg_required_else_help = false)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
The settings of the store are those of its servers, so the URL needs no options. The store must
exist: no command creates one. Run sss as the user of the servers. A memory: store cannot be
reached from another process.

Exit status: 0 success; 1 the store reported an error, check found damage, or the output could
not be written; 2 wrong usage.";

#[derive(Subcommand)]
pub enum Command {
    /// Show the number of sessions and the counters
    Stats {
        #[command(flatten)]
        store: StoreArgs,
        /// Print the text format of Prometheus
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
    /// Remove expired sessions
    Sweep {
        #[command(flatten)]
        store: StoreArgs,
        /// Remove at most N sessions [default: all that have expired]
        #[arg(long, value_name = "N")]
        max: Option<u64>,
    },
    /// List the sessions of a user: references and times, never ids
    List {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        user: UserArgs,
    },
    /// End all sessions of a user
    Revoke {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        user: UserArgs,
    },
    /// Check the store, and the structure of its file if no server has it open
    Check {
        #[command(flatten)]
        store: StoreArgs,
    },
}

#[derive(Args)]
pub struct StoreArgs {
    /// The URL of the store, for example lmdb:/var/lib/app/sessions
    #[arg(env = "SSS_URL", hide_env_values = true)]
    pub url: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct UserArgs {
    /// The principal of the sessions, for example a user id
    #[arg(long, value_name = "USER")]
    pub principal: OsString,
}

/// Parses the arguments of the process. The error may also be the text of `--help` or `--version`.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse().map_err(without_urls)
}

/// Replaces every argument in an error that is not a plain word, as a URL is.
fn without_urls(mut error: clap::Error) -> clap::Error {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,=<>[] ".contains(c));
    let hidden: Vec<ContextKind> = error
        .context()
        .filter(|(_, value)| match value {
            ContextValue::String(text) => !is_plain(text),
            ContextValue::Strings(texts) => !texts.iter().all(|text| is_plain(text)),
            _ => false,
        })
        .map(|(kind, _)| kind)
        .collect();
    for kind in hidden {
        error.insert(kind, ContextValue::String("…".to_owned()));
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn parser_is_consistent() {
        Cli::command().debug_assert();
    }
}
