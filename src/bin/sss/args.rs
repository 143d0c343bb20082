//! The command line as clap parses it. Usage errors must not show a store's URL, which may contain
//! a password.

use std::ffi::OsString;

use clap::{
    ArgGroup, Args, CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use clap_complete::Shell;

/// Inspect and maintain a session store from outside of its servers.
#[derive(Parser)]
#[command(
    name = "sss",
    version,
    after_help = AFTER_HELP,
    arg_required_else_help = false,
    max_term_width = 100,
    subcommand_value_name = "COMMAND"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
The settings of the store are those of its servers, so the URL needs no options. The store must exist: no command \
creates one. Run sss as the user of the servers. A memory: store cannot be reached from another process.

On a terminal the output is for people. In a pipe it is tab-separated lines without heads, with --json it is JSON; \
sss(1) describes both.

Exit status: 0 success; 1 the store reported an error, check found damage, or the output could not be written; 2 wrong \
usage.";

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
    /// Show rates per second, a line each second, until Ctrl-C
    Watch {
        #[command(flatten)]
        store: StoreArgs,
        /// End after N lines
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Remove expired sessions
    Sweep {
        #[command(flatten)]
        store: StoreArgs,
        /// Remove at most N sessions [default: all that have expired]
        #[arg(long, value_name = "N")]
        max: Option<u64>,
    },
    /// List the sessions of a user: references, times and labels, never ids
    List {
        #[command(flatten)]
        store: StoreArgs,
        /// The principal of the sessions, for example a user id
        #[arg(long, value_name = "USER")]
        principal: OsString,
    },
    /// End all sessions of a user, one session, or every session of the store
    Revoke {
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        which: RevokeArgs,
    },
    /// Check the store, and the structure of its file if no server has it open
    Check {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell that reads them
        shell: Shell,
    },
    /// Print the manual page, sss(1)
    #[command(hide = true)]
    Man,
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
#[command(group = ArgGroup::new("which").args(["principal", "reference", "all"]).multiple(true).required(true))]
pub struct RevokeArgs {
    /// End all sessions of this principal, or with --ref one of them
    #[arg(long, value_name = "USER")]
    pub principal: Option<OsString>,
    /// End the session with this reference; with --principal its first digits are enough
    #[arg(long = "ref", value_name = "REF", value_parser = reference)]
    pub reference: Option<String>,
    /// End every session of the store
    #[arg(long, conflicts_with_all = ["principal", "reference"])]
    pub all: bool,
    /// Do not ask before --all; required unless standard input is a terminal
    #[arg(long, conflicts_with_all = ["principal", "reference"])]
    pub yes: bool,
}

/// The digits of a reference.
const REFERENCE_DIGITS: usize = 64;

/// A reference or its first digits, as `Ref` is displayed.
fn reference(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.len() > REFERENCE_DIGITS || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("a reference has 64 hexadecimal digits");
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses the arguments of the process. The error may also be the text of `--help` or `--version`.
pub fn parse() -> Result<Cli, clap::Error> {
    let cli = Cli::try_parse().map_err(without_urls)?;
    if let Command::Revoke { which, .. } = &cli.command
        && which.principal.is_none()
        && which.reference.as_ref().is_some_and(|reference| reference.len() < REFERENCE_DIGITS)
    {
        return Err(usage_error("the first digits of a reference are enough only with --principal"));
    }
    Ok(cli)
}

/// An error about the arguments that clap does not find.
pub fn usage_error(message: &str) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, message)
}

/// Replaces every argument in an error that is not a plain word, as a URL is.
fn without_urls(mut error: clap::Error) -> clap::Error {
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.,=<>[]| ".contains(c));
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
    use super::*;

    #[test]
    fn parser_is_consistent() {
        Cli::command().debug_assert();
    }
}
