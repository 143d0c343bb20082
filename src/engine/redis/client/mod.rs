//! A client of Redis and Valkey: standalone, Cluster or Sentinel. A call ends by its deadline, over
//! all attempts, and is sent again only if that does no harm. Knows commands and scripts, but
//! nothing of sessions.

mod address;
mod breaker;
mod connection;
mod error;
mod options;
mod pool;
mod resp;
mod script;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
mod topology;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::{
    address::Address,
    connection::time_ms,
    resp::{Reply, text},
    script::Script,
};
use self::{
    connection::{Connection, replication_wait_ms},
    error::{Failure, SendState, io_error, protocol_error, server_error},
    options::ConnectOptions,
    pool::{Pool, Pools},
    stream::remaining,
    topology::{Retry, Topology, cluster::Cluster, sentinel::Sentinel, standalone::Standalone},
};
use crate::{
    error::{Error, ErrorKind, Result},
    url::{Host, RedisUrl, Servers},
};

/// How often a call is sent whose connection was lost.
const MAX_ATTEMPTS: u32 = 4;
/// How often a call is redirected.
const MAX_REDIRECTS: u32 = 40;
/// A call is not redirected when less time remains.
const MIN_REDIRECT_TIME: Duration = Duration::from_millis(10);

/// Whether a call may be sent again when its answer was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Idempotency {
    /// It may, and waits for no replica.
    Read,
    /// It may: executing it twice is as executing it once.
    Idempotent,
    AtMostOnce,
}

/// How an answer was come by.
#[derive(Clone, Copy, Default)]
pub(super) struct Delivery {
    /// An earlier attempt may have been executed too.
    pub was_resent: bool,
}

pub(super) struct Client {
    topology: Box<dyn Topology>,
    /// How many replicas must have a write.
    wait: u32,
}

impl Client {
    /// Connects to no server yet.
    pub(super) fn new(url: &RedisUrl) -> Result<Client> {
        let options = ConnectOptions::data_node(url)?;
        let addresses = |hosts: &[Host]| hosts.iter().cloned().map(Address::Tcp).collect();
        let standalone = |address, options| {
            Box::new(Standalone(Arc::new(Pool::new(address, Arc::new(options), url.pool)))) as Box<dyn Topology>
        };
        let topology = match &url.servers {
            Servers::Unix(path) => standalone(Address::Unix(path.clone()), options),
            Servers::One(host) => standalone(Address::Tcp(host.clone()), options),
            Servers::Cluster(hosts) => Box::new(Cluster::new(addresses(hosts), Pools::new(options, url.pool))),
            Servers::Sentinel(hosts, name) => {
                let sentinel = ConnectOptions::sentinel(url, &options);
                Box::new(Sentinel::new(addresses(hosts), name.clone(), sentinel, options, url.pool))
            }
        };
        Ok(Client { topology, wait: url.wait })
    }

    /// Whether two keys may be on different servers.
    pub(super) fn spans_servers(&self) -> bool {
        self.topology.spans_servers()
    }

    /// Whether writes wait for replicas.
    pub(super) fn waits_for_replicas(&self) -> bool {
        self.wait > 0
    }

    /// The server that has the key, as far as is known.
    pub(super) fn server_of(&self, key: &[u8], deadline: Instant) -> Result<Address> {
        Ok(self.topology.pool_for(key, deadline)?.server().clone())
    }

    /// About what the clock of the server says that has the key.
    pub(super) fn now_ms(&self, key: &[u8], deadline: Instant) -> Result<i64> {
        if let Some(now_ms) = self.topology.pool_for(key, deadline)?.now_ms() {
            return Ok(now_ms);
        }
        // A connection begins with a look at the clock.
        self.run(key, Idempotency::Read, deadline, |_, _| Ok(()))?;
        Ok(self.topology.pool_for(key, deadline)?.now_ms().unwrap_or_default())
    }

    /// Runs a script on the server that has its keys, and returns what it returns; the first item
    /// is the server's time.
    pub(super) fn script(
        &self,
        script: &Script,
        idempotency: Idempotency,
        keys: &[&[u8]],
        args: &[&[u8]],
        deadline: Instant,
    ) -> Result<(Vec<Reply>, Delivery)> {
        let count = keys.len().to_string();
        let tail = || [count.as_bytes()].into_iter().chain(keys.iter().copied()).chain(args.iter().copied());
        let by_digest: Vec<&[u8]> = [&b"EVALSHA"[..], script.digest().as_bytes()].into_iter().chain(tail()).collect();
        self.run(keys[0], idempotency, deadline, |connection, asking| {
            let mut reply = send(connection, asking, &by_digest, deadline)?;
            if reply.error().is_some_and(|answer| answer.starts_with("NOSCRIPT")) {
                let by_source: Vec<&[u8]> =
                    [&b"EVAL"[..], script.source().as_bytes()].into_iter().chain(tail()).collect();
                reply = send(connection, asking, &by_source, deadline)?;
            }
            match reply {
                Reply::Array(items) => {
                    if let Some(server_ms) = items.first().and_then(Reply::int) {
                        connection.set_server_time(server_ms);
                    }
                    self.wait_for_replicas(connection, idempotency, deadline)?;
                    Ok(items)
                }
                Reply::Error(answer) => Err(server_error(&answer, connection.server())),
                _ => Err(protocol_error(connection.server())),
            }
        })
    }

    /// Runs commands that may be sent again on the server that has the key, in one trip, and
    /// returns the reply to each.
    pub(super) fn pipeline(&self, key: &[u8], commands: &[&[&[u8]]], deadline: Instant) -> Result<Vec<Reply>> {
        let (replies, _) =
            self.run(key, Idempotency::Read, deadline, |connection, _| connection.call(commands, deadline))?;
        Ok(replies)
    }

    /// Runs one command on the server that has the key.
    pub(super) fn command(
        &self,
        key: &[u8],
        idempotency: Idempotency,
        parts: &[&[u8]],
        deadline: Instant,
    ) -> Result<Reply> {
        let (reply, _) = self.run(key, idempotency, deadline, |connection, asking| {
            match send(connection, asking, parts, deadline)? {
                Reply::Error(answer) => Err(server_error(&answer, connection.server())),
                reply => {
                    self.wait_for_replicas(connection, idempotency, deadline)?;
                    Ok(reply)
                }
            }
        })?;
        Ok(reply)
    }

    /// All servers that have keys.
    pub(super) fn servers(&self, deadline: Instant) -> Result<Vec<Address>> {
        Ok(self.topology.all_pools(deadline)?.iter().map(|pool| pool.server().clone()).collect())
    }

    /// What a server's clock says.
    pub(super) fn time_at(&self, server: &Address, deadline: Instant) -> Result<i64> {
        self.run_at(server, deadline, |connection| match connection.command(&[b"TIME"], deadline)? {
            Reply::Error(answer) => Err(server_error(&answer, server)),
            time => time_ms(&time).ok_or_else(|| protocol_error(server)),
        })
    }

    /// One step of SCAN on one server: the next cursor, which is `0` at the end, and the names of
    /// keys.
    pub(super) fn scan_at(
        &self,
        server: &Address,
        cursor: &[u8],
        pattern: &[u8],
        deadline: Instant,
    ) -> Result<(Vec<u8>, Vec<Vec<u8>>)> {
        self.run_at(server, deadline, |connection| {
            let (next, names, _) = scan_step(connection, cursor, pattern, &[], deadline)?;
            Ok((next, names))
        })
    }

    /// Runs a script for each of these keys on one server, in one trip, and returns what it returns
    /// for each; `None` for a key that is not there any more, because its slot is being moved.
    pub(super) fn script_on_each(
        &self,
        server: &Address,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[&[u8]],
        deadline: Instant,
    ) -> Result<Vec<Option<Vec<Reply>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // The server knows the digest once it has executed the source.
        let by_source: [&[u8]; 2] = [b"EVAL", script.source().as_bytes()];
        let by_digest: [&[u8]; 2] = [b"EVALSHA", script.digest().as_bytes()];
        let command = |i: usize| [if i == 0 { &by_source[..] } else { &by_digest }, &[b"1", &keys[i]], args].concat();
        let commands: Vec<Vec<&[u8]>> = (0..keys.len()).map(command).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        self.run_at(server, deadline, |connection| {
            let replies = connection.call(&commands, deadline)?;
            self.wait_for_replicas(connection, Idempotency::Idempotent, deadline)?;
            let result = |reply| match reply {
                Reply::Array(items) => Ok(Some(items)),
                Reply::Error(answer) => {
                    let failure = server_error(&answer, server);
                    let is_elsewhere = failure.redirect.is_some() && self.spans_servers();
                    if is_elsewhere || answer.starts_with("NOSCRIPT") { Ok(None) } else { Err(failure) }
                }
                _ => Err(protocol_error(server)),
            };
            replies.into_iter().map(result).collect()
        })
    }

    /// Sends a call that may be sent again to one server.
    fn run_at<T>(
        &self,
        server: &Address,
        deadline: Instant,
        mut call: impl FnMut(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T> {
        let pool = self.topology.pool_at(server);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let result = pool.with_connection(deadline, || self.topology.confirm(server, deadline), &mut call);
            match result {
                Err(failure)
                    if matches!(failure.state, SendState::NotSent | SendState::Unknown)
                        && failure.error.kind() != ErrorKind::Timeout
                        && attempts < MAX_ATTEMPTS => {}
                result => return result.map_err(|failure| failure.error),
            }
        }
    }

    /// Calls `visit` with the names of all keys that match the pattern and the replies to these
    /// commands about each, until it returns false. Keys that come or go meanwhile may be visited,
    /// and others twice.
    pub(super) fn scan(
        &self,
        pattern: &[u8],
        commands: &[&[&[u8]]],
        deadline: Instant,
        mut visit: impl FnMut(&[u8], &[Reply]) -> Result<bool>,
    ) -> Result<()> {
        for pool in self.topology.all_pools(deadline)? {
            let mut cursor = b"0".to_vec();
            loop {
                let step = pool.with_connection(
                    deadline,
                    || self.topology.confirm(pool.server(), deadline),
                    |connection| scan_step(connection, &cursor, pattern, commands, deadline),
                );
                let (next, names, replies) = step.map_err(|failure| failure.error)?;
                for (name, replies) in names.iter().zip(replies.chunks(commands.len().max(1))) {
                    if !visit(name, replies)? {
                        return Ok(());
                    }
                }
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(())
    }

    /// After a write: until enough replicas have it.
    fn wait_for_replicas(
        &self,
        connection: &mut Connection,
        idempotency: Idempotency,
        deadline: Instant,
    ) -> Result<(), Failure> {
        if idempotency == Idempotency::Read || self.wait == 0 {
            return Ok(());
        }
        // The write was executed: a failure from now on must not repeat it.
        let left = remaining(deadline).map_err(|error| io_error(SendState::Unknown, &error, connection.server()))?;
        let wait = text(self.wait);
        let timeout = replication_wait_ms(left);
        let answer = connection
            .command(&[b"WAIT", &wait, timeout.as_bytes()], deadline)
            .map_err(|failure| failure.with_state(SendState::Unknown))?;
        match (answer.int(), answer.error()) {
            (Some(replicas), _) if replicas >= i64::from(self.wait) => Ok(()),
            (Some(replicas), _) => {
                let server = connection.server();
                let message =
                    format!("written, but only {replicas} of {} replicas (wait=) of {server} have it", self.wait);
                Err(Failure::new(SendState::Rejected, Error::new(ErrorKind::Unavailable, message)))
            }
            (None, Some(answer)) => Err(server_error(answer, connection.server())),
            (None, None) => Err(protocol_error(connection.server())),
        }
    }

    /// Sends a call to the server that has the key, as often as is needed and permitted. `call` is
    /// told whether it has to ask (ASKING) for a key whose slot is being moved.
    fn run<T>(
        &self,
        key: &[u8],
        idempotency: Idempotency,
        deadline: Instant,
        mut call: impl FnMut(&mut Connection, bool) -> Result<T, Failure>,
    ) -> Result<(T, Delivery)> {
        let mut attempts = 0;
        let mut redirects = 0;
        let mut asked: Option<Address> = None;
        let mut delivery = Delivery::default();
        loop {
            let asking = asked.is_some();
            let pool = match asked.take() {
                Some(address) => self.topology.pool_at(&address),
                None => self.topology.pool_for(key, deadline)?,
            };
            let result = pool.with_connection(
                deadline,
                || self.topology.confirm(pool.server(), deadline),
                |connection| call(connection, asking),
            );
            let failure = match result {
                Ok(value) => return Ok((value, delivery)),
                Err(failure) => failure,
            };
            // A server that needs a moment gets all the time there is.
            redirects += u32::from(!matches!(failure.redirect, Some(error::Redirect::Later)));
            if redirects < MAX_REDIRECTS && remaining(deadline).is_ok_and(|left| left > MIN_REDIRECT_TIME) {
                match self.topology.retry(key, &failure, deadline) {
                    Some(Retry::Same) => continue,
                    Some(Retry::Ask(address)) => {
                        asked = Some(address);
                        continue;
                    }
                    None => {}
                }
            }
            let may_resend = match failure.state {
                SendState::NotSent => true,
                SendState::Unknown => {
                    idempotency != Idempotency::AtMostOnce && failure.error.kind() != ErrorKind::Timeout
                }
                SendState::NotConnected | SendState::Rejected => false,
            };
            attempts += 1;
            if !may_resend || attempts == MAX_ATTEMPTS {
                return Err(self.final_error(failure));
            }
            delivery.was_resent |= failure.state == SendState::Unknown;
        }
    }

    /// What a call fails with. A redirection within the Cluster is one that no time was left for.
    fn final_error(&self, failure: Failure) -> Error {
        match failure.redirect {
            Some(error::Redirect::Moved(..) | error::Redirect::Ask(_)) if self.spans_servers() => {
                Error::fixed(ErrorKind::Timeout, "the slot of the key is being moved to another server of the Cluster")
            }
            _ => failure.error,
        }
    }
}

/// Sends one command. A server to which a slot is being moved executes each command only after an
/// ASKING of its own.
fn send(connection: &mut Connection, asking: bool, parts: &[&[u8]], deadline: Instant) -> Result<Reply, Failure> {
    if asking {
        let mut replies = connection.call(&[&[b"ASKING"], parts], deadline)?;
        return Ok(replies.pop().unwrap_or(Reply::Nil));
    }
    connection.command(parts, deadline)
}

/// One step of SCAN: the next cursor, the names, and the replies about each.
#[allow(clippy::type_complexity)]
fn scan_step(
    connection: &mut Connection,
    cursor: &[u8],
    pattern: &[u8],
    commands: &[&[&[u8]]],
    deadline: Instant,
) -> Result<(Vec<u8>, Vec<Vec<u8>>, Vec<Reply>), Failure> {
    let reply = connection.command(&[b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"512"], deadline)?;
    if let Some(answer) = reply.error() {
        return Err(server_error(answer, connection.server()));
    }
    let parts = match reply.array() {
        Some([next, names]) => next.bytes().zip(names.array()),
        _ => None,
    };
    let (next, names) = parts.ok_or_else(|| protocol_error(connection.server()))?;
    let names: Vec<Vec<u8>> = names.iter().filter_map(Reply::bytes).map(<[u8]>::to_vec).collect();
    let requests: Vec<Vec<&[u8]>> = names
        .iter()
        .flat_map(|name| commands.iter().map(|command| [&command[..1], &[name], &command[1..]].concat()))
        .collect();
    let requests: Vec<&[&[u8]]> = requests.iter().map(Vec::as_slice).collect();
    let replies = connection.call(&requests, deadline)?;
    // A key whose slot is being moved is visited where it arrives, or not at all.
    let is_moving = |answer: &&str| answer.starts_with("ASK") || answer.starts_with("MOVED");
    match replies.iter().filter_map(Reply::error).find(|answer| !is_moving(answer)) {
        Some(answer) => Err(server_error(answer, connection.server())),
        None => Ok((next.to_vec(), names, replies)),
    }
}
