//! How a call fails: what is known of its fate, which says whether it may be sent again, and the error that its caller gets
//! if it may not. A server's own words are never repeated: it may quote what it was sent.

use std::io;

use super::{cluster, servers::Address};
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(super) struct Failure {
    pub fate: Fate,
    /// Where a server of a Cluster sends the call on to. It has not done it.
    pub detour: Option<Detour>,
    pub error: Error,
}

#[derive(Debug)]
pub(super) enum Detour {
    /// This slot is there from now on.
    Moved(u16, Address),
    /// This key is there, or will be.
    Ask(Address),
    /// In a moment it can be done.
    Later,
    /// This is not the master, or not any more.
    Elsewhere,
}

impl Failure {
    pub(super) fn new(fate: Fate, error: Error) -> Failure {
        Failure { fate, detour: None, error }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The server was not reached.
    NotConnected,
    /// The server has not got it as a whole, and so has not done it.
    NotSent,
    /// It may have been done or not, or still be done.
    Unknown,
    /// The server has answered that it does not do it, and the connection is as good as before.
    Refused,
}

/// So much of a call has gone out.
pub(super) fn io(fate: Fate, error: &io::Error, server: &Address) -> Failure {
    let (kind, what) = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            (ErrorKind::Timeout, "did not answer in time".to_owned())
        }
        io::ErrorKind::UnexpectedEof => (ErrorKind::Unavailable, "closed the connection".to_owned()),
        io::ErrorKind::OutOfMemory => (ErrorKind::NoMem, "sent more than there is memory for".to_owned()),
        io::ErrorKind::InvalidData => (ErrorKind::Unavailable, format!("cannot be understood: {error}")),
        _ if fate == Fate::NotConnected => (ErrorKind::Unavailable, format!("cannot be reached: {error}")),
        _ => (ErrorKind::Unavailable, format!("lost the connection: {error}")),
    };
    Failure::new(fate, Error::new(kind, format!("the server {server} {what}")))
}

/// The server's refusal, from the first word of its answer.
pub(super) fn refused(answer: &str, server: &Address) -> Failure {
    // What a script's command was refused is in words: for want of a permission in those of Redis 7.0, or of 7.2 and Valkey.
    let says = |words: &str| answer.contains(words);
    let code = match answer.split(' ').next().unwrap_or_default() {
        "ERR" if says("The user executing the script") || says("ACL failure in script") => "NOPERM",
        "ERR" if says("Script attempted to access a non local key") => "NONLOCAL",
        code => code,
    };
    let (kind, what) = match code {
        "OOM" => (ErrorKind::Full, "has reached its 'maxmemory'"),
        "WRONGTYPE" => (ErrorKind::Corrupt, "has something else where a record should be"),
        "LOADING" => (ErrorKind::Unavailable, "is still reading its data from disk"),
        "READONLY" => (ErrorKind::Unavailable, "is a replica, which takes no writes"),
        "MASTERDOWN" => (ErrorKind::Unavailable, "is a replica that has lost its master"),
        "CLUSTERDOWN" | "TRYAGAIN" | "NONLOCAL" => (ErrorKind::Unavailable, "says that its cluster is not whole"),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            (ErrorKind::Unavailable, "is one of a cluster: 'redis+cluster://' knows how to ask it")
        }
        "NOREPLICAS" => (ErrorKind::Unavailable, "has fewer replicas than its 'min-replicas-to-write'"),
        "MISCONF" => (ErrorKind::Unavailable, "takes no writes because it cannot save them to disk"),
        "BUSY" => (ErrorKind::Unavailable, "is busy with a script"),
        "NOAUTH" => (ErrorKind::Unavailable, "wants a user or a password"),
        "WRONGPASS" => (ErrorKind::Unavailable, "refuses the user or the password"),
        "NOPERM" => (ErrorKind::Unavailable, "does not permit its user what docs/redis.md lists"),
        _ => (ErrorKind::Unavailable, "refuses a command that Redis 7 knows"),
    };
    let detour = match code {
        "MOVED" => cluster::redirection(answer, server).map(|(slot, address)| Detour::Moved(slot, address)),
        "ASK" => cluster::redirection(answer, server).map(|(_, address)| Detour::Ask(address)),
        "TRYAGAIN" | "CLUSTERDOWN" | "NONLOCAL" => Some(Detour::Later),
        "READONLY" | "MASTERDOWN" => Some(Detour::Elsewhere),
        _ => None,
    };
    Failure { fate: Fate::Refused, detour, error: Error::new(kind, format!("the server {server} {what}")) }
}

/// What no server of this kind answers: the connection is not to be trusted any more.
pub(super) fn nonsense(server: &Address) -> Failure {
    let message = format!("the server {server} gave an answer of the wrong kind");
    Failure::new(Fate::Unknown, Error::new(ErrorKind::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_without_a_permission_is_told_so_by_every_server() {
        for answer in [
            "NOPERM this user has no permissions to run the 'evalsha' command",
            "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.",
            "ERR ACL failure in script: User sss has no permissions to run the 'setrange' command script: 1, on @user_script:1.",
        ] {
            let error = refused(answer, &Address::Unix("/socket".into())).error;
            assert!(error.to_string().contains("does not permit"), "{error}");
        }
    }
}
