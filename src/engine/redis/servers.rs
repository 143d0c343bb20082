//! Which server a key is on, and calls to it: a call ends in time, and is sent again only where that does no harm.

use std::{fmt, path::PathBuf, time::Instant};

use super::{
    connection::{self, Connection},
    failure::{self, Failure, Fate},
    pool::Pool,
    resp::{self, Reply},
    script::Script,
    stream,
};
use crate::{
    error::{Error, ErrorKind, Result},
    url::{Host, Password, RedisUrl},
};

/// How often a call is sent at the most.
const ATTEMPTS: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp(Host),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host) => host.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

/// As whom a connection is made, and to which database.
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<Password>,
    pub db: u32,
}

/// What a call is to its fate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be sent again when its answer was lost, and waits for no replica.
    Read,
    /// The same, but it writes: doing it twice is as doing it once.
    Write,
    /// Writes, and must not be done twice.
    Once,
}

pub(super) struct Servers {
    login: Login,
    wait: u32,
    one: Pool,
}

impl Servers {
    pub(super) fn new(url: &RedisUrl) -> Servers {
        let address = match &url.servers {
            crate::url::Servers::Unix(path) => Address::Unix(path.clone()),
            crate::url::Servers::One(host) => Address::Tcp(host.clone()),
            // The URL refuses them for now.
            crate::url::Servers::Cluster(hosts) | crate::url::Servers::Sentinel(hosts, _) => {
                Address::Tcp(hosts[0].clone())
            }
        };
        let login = Login { user: url.user.clone(), password: url.password.clone(), db: url.db };
        Servers { login, wait: url.wait, one: Pool::new(address, url.pool) }
    }

    /// About what the clock of the server says that has the key.
    pub(super) fn now_ms(&self, key: &[u8], until: Instant) -> Result<i64> {
        self.pool(key).now_ms(&self.login, until).map_err(|failure| failure.error)
    }

    /// Runs a script where its keys are, and returns what it returns; the first of it is the server's time.
    pub(super) fn script(
        &self,
        script: &Script,
        kind: Kind,
        keys: &[&[u8]],
        args: &[&[u8]],
        until: Instant,
    ) -> Result<Vec<Reply>> {
        let count = keys.len().to_string();
        let tail = || [count.as_bytes()].into_iter().chain(keys.iter().copied()).chain(args.iter().copied());
        let known: Vec<&[u8]> = [&b"EVALSHA"[..], script.digest().as_bytes()].into_iter().chain(tail()).collect();
        self.run(keys[0], kind, until, |connection| {
            let mut reply = self.written(connection, kind, &known, until)?;
            if matches!(&reply, Reply::Error(answer) if answer.starts_with("NOSCRIPT")) {
                let whole: Vec<&[u8]> = [&b"EVAL"[..], script.source.as_bytes()].into_iter().chain(tail()).collect();
                reply = self.written(connection, kind, &whole, until)?;
            }
            match reply {
                Reply::Array(items) => Ok(items),
                Reply::Error(answer) => Err(failure::refused(&answer, connection.server())),
                _ => Err(failure::nonsense(connection.server())),
            }
        })
    }

    /// Runs one command on the server that has the key.
    pub(super) fn command(&self, key: &[u8], kind: Kind, parts: &[&[u8]], until: Instant) -> Result<Reply> {
        self.run(key, kind, until, |connection| match self.written(connection, kind, parts, until)? {
            Reply::Error(answer) => Err(failure::refused(&answer, connection.server())),
            reply => Ok(reply),
        })
    }

    /// Calls `visit` with the names of all keys that match the pattern and the replies to what is asked of each, for as long
    /// as it says so. What comes and goes meanwhile may be met, and what stays may be met twice.
    pub(super) fn walk(
        &self,
        pattern: &[u8],
        asks: &[&[&[u8]]],
        until: Instant,
        mut visit: impl FnMut(&[u8], &[Reply]) -> Result<bool>,
    ) -> Result<()> {
        let mut cursor = b"0".to_vec();
        loop {
            let (next, names, replies) = self.run(pattern, Kind::Read, until, |connection| {
                let (next, names) = scanned(connection, &cursor, pattern, until)?;
                let commands: Vec<Vec<&[u8]>> = names
                    .iter()
                    .flat_map(|name| asks.iter().map(|ask| [&ask[..1], &[name], &ask[1..]].concat()))
                    .collect();
                let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
                let replies = connection.call(&commands, until)?;
                match replies.iter().find_map(Reply::error) {
                    Some(answer) => Err(failure::refused(answer, connection.server())),
                    None => Ok((next, names, replies)),
                }
            })?;
            for (name, replies) in names.iter().zip(replies.chunks(asks.len().max(1))) {
                if !visit(name, replies)? {
                    return Ok(());
                }
            }
            if next == b"0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One command, and where it writes, how many replicas have it.
    fn written(
        &self,
        connection: &mut Connection,
        kind: Kind,
        parts: &[&[u8]],
        until: Instant,
    ) -> Result<Reply, Failure> {
        if kind == Kind::Read || self.wait == 0 {
            return Ok(one(connection.call(&[parts], until)?));
        }
        let left = stream::left(until).map_err(|error| failure::io(Fate::NotSent, &error, connection.server()))?;
        let (wait, ms) = (resp::text(self.wait), connection::wait_ms(left));
        let mut replies = connection.call(&[parts, &[b"WAIT", &wait, ms.as_bytes()]], until)?;
        let (acknowledged, reply) = (replies.pop().and_then(|reply| reply.int()), one(replies));
        match acknowledged {
            _ if matches!(reply, Reply::Error(_)) => Ok(reply),
            Some(replicas) if replicas >= i64::from(self.wait) => Ok(reply),
            Some(replicas) => {
                let server = connection.server();
                let message =
                    format!("written, but only {replicas} of {} replicas (wait=) of {server} have it", self.wait);
                Err(Failure { fate: Fate::Refused, error: Error::new(ErrorKind::Unavailable, message) })
            }
            None => Err(failure::nonsense(connection.server())),
        }
    }

    fn run<T>(
        &self,
        key: &[u8],
        kind: Kind,
        until: Instant,
        mut call: impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let failure = match self.pool(key).with(&self.login, until, &mut call) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let again = match failure.fate {
                Fate::NotSent => true,
                Fate::Unknown => kind != Kind::Once && failure.error.kind() != ErrorKind::Timeout,
                Fate::NotConnected | Fate::Refused => false,
            };
            if !again || attempts == ATTEMPTS {
                return Err(failure.error);
            }
        }
    }

    /// What a script has told of the server's time.
    pub(super) fn tell(&self, key: &[u8], server_ms: i64) {
        self.pool(key).tell(server_ms);
    }

    fn pool(&self, _key: &[u8]) -> &Pool {
        &self.one
    }
}

fn one(mut replies: Vec<Reply>) -> Reply {
    replies.pop().unwrap_or(Reply::Nil)
}

/// One step of SCAN: where the next one goes on, and the names.
fn scanned(
    connection: &mut Connection,
    cursor: &[u8],
    pattern: &[u8],
    until: Instant,
) -> Result<(Vec<u8>, Vec<Vec<u8>>), Failure> {
    let reply = one(connection.call(&[&[b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"512"]], until)?);
    if let Some(answer) = reply.error() {
        return Err(failure::refused(answer, connection.server()));
    }
    let parts = match reply.array() {
        Some([next, names]) => next.bytes().zip(names.array()),
        _ => None,
    };
    let (next, names) = parts.ok_or_else(|| failure::nonsense(connection.server()))?;
    Ok((next.to_vec(), names.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect()))
}
