//! How a call fails: how far it got, which decides whether it may be sent again; where a Cluster
//! redirects it; and the error for the caller. A server's own words are never repeated: they may
//! quote what was sent.

use std::io;

use super::address::Address;
use crate::error::{Error, ErrorKind};

#[derive(Debug)]
pub(crate) struct Failure {
    pub state: SendState,
    /// Where the call has to go instead. It was not executed.
    pub redirect: Option<Redirect>,
    pub error: Error,
}

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendState {
    /// The server was not reached.
    NotConnected,
    /// The server did not get the whole call, and so did not execute it.
    NotSent,
    /// It may have been executed, or may still be.
    Unknown,
    /// The server refused it, and the connection is still usable.
    Rejected,
}

#[derive(Debug)]
pub(crate) enum Redirect {
    /// From now on the slot is there.
    Moved(u16, Address),
    /// The key is there, or will be: its slot is being moved.
    Ask(Address),
    /// The same server will execute it in a moment.
    Later,
    /// This server is not the master, or no longer.
    NotMaster,
    /// Another master is known by now.
    NewMaster,
}

impl Failure {
    pub(crate) fn new(state: SendState, error: Error) -> Failure {
        Failure { state, redirect: None, error }
    }

    pub(super) fn with_state(self, state: SendState) -> Failure {
        Failure { state, ..self }
    }

    /// Whether it tells that the server is down. A connection that was cut does not: the next one
    /// will show.
    pub(super) fn is_of_server(&self) -> bool {
        self.state == SendState::NotConnected || self.error.kind() == ErrorKind::Timeout
    }
}

/// An operating system's error after so much of a call was sent.
pub(super) fn io_error(state: SendState, error: &io::Error, server: &Address) -> Failure {
    let (kind, what) = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            (ErrorKind::Timeout, "did not answer in time".to_owned())
        }
        io::ErrorKind::UnexpectedEof => (ErrorKind::Unavailable, "closed the connection".to_owned()),
        io::ErrorKind::OutOfMemory => (ErrorKind::NoMem, "sent more than there is memory for".to_owned()),
        io::ErrorKind::InvalidData => (ErrorKind::Unavailable, format!("sent a protocol error: {error}")),
        _ if state == SendState::NotConnected => (ErrorKind::Unavailable, format!("cannot be reached: {error}")),
        _ => (ErrorKind::Unavailable, format!("lost the connection: {error}")),
    };
    Failure::new(state, Error::new(kind, format!("the server {server} {what}")))
}

/// A server's refusal, by the first word of its answer, which is its code. Where a server has no
/// code of its own ("ERR"), or a script wraps the code, the text decides, without regard to case:
/// Redis and Valkey differ in it.
pub(super) fn server_error(answer: &str, server: &Address) -> Failure {
    let lowercase = answer.to_ascii_lowercase();
    let says = |text: &str| lowercase.contains(text);
    let code = match answer.split(' ').next().unwrap_or_default() {
        "ERR" if says("the user executing the script") || says("acl failure in script") => "NOPERM",
        "ERR" if says("attempted to access a non local key") => "NONLOCAL",
        "ERR" if says("max number of clients") => "MAXCLIENTS",
        "ERR" if says("without any password configured") => "NOPASSWORD",
        "ERR" if says("db index is out of range") || says("select is not allowed in cluster mode") => "NODB",
        "ERR" if says("unknown command") || says("unknown subcommand") => "UNKNOWN",
        code => code,
    };
    let (kind, what) = match code {
        "OOM" => (ErrorKind::Full, "has reached its 'maxmemory'"),
        "WRONGTYPE" => (ErrorKind::Corrupt, "has a value of another type in place of a record"),
        "LOADING" => (ErrorKind::Unavailable, "is still loading its data from disk"),
        "READONLY" => (ErrorKind::Unavailable, "is a replica, which takes no writes"),
        "MASTERDOWN" => (ErrorKind::Unavailable, "is a replica that has lost its master"),
        "CLUSTERDOWN" => (ErrorKind::Unavailable, "reports CLUSTERDOWN"),
        "TRYAGAIN" | "NONLOCAL" => (ErrorKind::Unavailable, "is moving the slot of the key"),
        "MOVED" | "ASK" | "CROSSSLOT" => (ErrorKind::Unavailable, "belongs to a Cluster: use 'redis+cluster://'"),
        "NOREPLICAS" => (ErrorKind::Unavailable, "has fewer replicas than its 'min-replicas-to-write'"),
        "MISCONF" => (ErrorKind::Unavailable, "takes no writes because it cannot save them to disk"),
        "BUSY" => (ErrorKind::Unavailable, "is busy with a script"),
        "MAXCLIENTS" => (ErrorKind::Unavailable, "has reached its 'maxclients'"),
        "NOAUTH" => (ErrorKind::Unavailable, "requires a user or a password"),
        "WRONGPASS" => (ErrorKind::Unavailable, "refuses the user or the password"),
        "NOPASSWORD" => (ErrorKind::Unavailable, "has no password for the default user, but the URL has one"),
        "NODB" => (ErrorKind::Unavailable, "does not have the database of the URL"),
        "NOPERM" => (ErrorKind::Unavailable, "does not permit its user what docs/redis.md lists"),
        "DENIED" => (ErrorKind::Unavailable, "is in protected mode: it has no password and is asked from another host"),
        "UNKNOWN" => (ErrorKind::Unavailable, "does not know a command of Redis 7"),
        _ => (ErrorKind::Unavailable, "answers with an error that this library does not know"),
    };
    let redirect = match code {
        "MOVED" => parse_redirect(answer, server).map(|(slot, address)| Redirect::Moved(slot, address)),
        "ASK" => parse_redirect(answer, server).map(|(_, address)| Redirect::Ask(address)),
        "TRYAGAIN" | "CLUSTERDOWN" | "NONLOCAL" => Some(Redirect::Later),
        "READONLY" | "MASTERDOWN" => Some(Redirect::NotMaster),
        _ => None,
    };
    let error = Error::new(kind, format!("the server {server} {what}"));
    Failure { state: SendState::Rejected, redirect, error }
}

/// An answer of the wrong type: the connection cannot be trusted any more.
pub(super) fn protocol_error(server: &Address) -> Failure {
    let message = format!("the server {server} gave an answer of the wrong type");
    Failure::new(SendState::Unknown, Error::new(ErrorKind::Unavailable, message))
}

/// `MOVED 3999 127.0.0.1:6381` or `ASK …`: the slot, and the server that has it.
fn parse_redirect(answer: &str, from: &Address) -> Option<(u16, Address)> {
    let mut words = answer.split(' ').skip(1);
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    Some((slot, Address::from_peer(Some(host.as_bytes()), port.parse().ok(), from)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Host;

    fn at(name: &str, port: u16) -> Address {
        Address::Tcp(Host { name: name.to_owned(), port })
    }

    #[test]
    fn redirect_names_slot_and_server() {
        let from = at("h", 1);
        assert_eq!(parse_redirect("MOVED 3999 127.0.0.1:6381", &from), Some((3999, at("127.0.0.1", 6381))));
        assert_eq!(parse_redirect("ASK 3999 ::1:6381", &from), Some((3999, at("::1", 6381))));
        assert_eq!(parse_redirect("MOVED 3999 :6381", &from), Some((3999, at("h", 6381))));
        for bad in ["MOVED", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:0", "MOVED 1 h:99999"] {
            assert_eq!(parse_redirect(bad, &from), None, "{bad}");
        }
    }

    /// The words of Redis 7.0 and 7.2 and of Valkey 7.2, 8 and 9.
    #[test]
    fn server_errors_name_the_cause() {
        for (answer, expected) in [
            ("NOPERM this user has no permissions to run the 'evalsha' command", "docs/redis.md"),
            (
                "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.",
                "docs/redis.md",
            ),
            (
                "ERR ACL failure in script: User sss has no permissions to run the 'setrange' command script: 1, on \
                 @user_script:1.",
                "docs/redis.md",
            ),
            ("ERR Script attempted to access a non local key in a cluster node script: 1, on 2.", "moving the slot"),
            ("ERR Attempted to access a non local key in a cluster node script: 1, on 2.", "moving the slot"),
            ("ERR max number of clients reached", "'maxclients'"),
            (
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
                "no password for the default user",
            ),
            ("ERR DB index is out of range", "database"),
            ("ERR SELECT is not allowed in cluster mode", "database"),
            ("ERR unknown command 'PEXPIRETIME', with args beginning with: 'x' ", "command of Redis 7"),
            ("DENIED Redis is running in protected mode because", "protected mode"),
            ("ERR something new", "does not know"),
        ] {
            let failure = server_error(answer, &Address::Unix("/socket".into()));
            assert_eq!(failure.error.kind(), ErrorKind::Unavailable, "{answer}");
            assert!(failure.error.to_string().contains(expected), "{answer}: {}", failure.error);
        }
    }
}
