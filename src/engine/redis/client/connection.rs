//! One connection to one server: commands go out, as many replies come back. After any failure but
//! a server's refusal it must be dropped, because a late reply would be taken for that of the next
//! call (CVE-2023-28858).

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use zeroize::Zeroize;

use super::{
    address::Address,
    error::{Failure, Redirect, SendState, io_error, protocol_error, server_error},
    options::ConnectOptions,
    resp::{self, Reply, ReplyReader},
    stream::{DeadlineStream, Stream},
};
use crate::error::{Error, ErrorKind};

/// A larger buffer is not kept for the next call.
const KEPT_BUFFER: usize = 64 << 10;
/// For how long a server remains confirmed to be the right one.
const CONFIRMATION_LIFETIME: Duration = Duration::from_secs(1);
/// How often an open connection looks at the server's eviction policy.
const EVICTION_CHECK_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Connection {
    server: Address,
    clock: Arc<ServerClock>,
    stream: Box<dyn Stream>,
    replies: ReplyReader,
    write_buf: Vec<u8>,
    confirmed_at: Instant,
    eviction_checked_at: Instant,
}

/// The server's clock as the last answer told it: late by the time that the answer took.
pub(super) struct ServerClock {
    began: Instant,
    /// To be added to the milliseconds since then; `i64::MIN` while the time is not known.
    offset_ms: AtomicI64,
}

impl ServerClock {
    pub(super) fn new() -> ServerClock {
        ServerClock { began: Instant::now(), offset_ms: AtomicI64::new(i64::MIN) }
    }

    fn set(&self, server_ms: i64) {
        self.offset_ms.store(server_ms.saturating_sub(self.began.elapsed().as_millis() as i64), Ordering::Relaxed);
    }

    pub(super) fn now_ms(&self) -> Option<i64> {
        match self.offset_ms.load(Ordering::Relaxed) {
            i64::MIN => None,
            offset_ms => Some(offset_ms + self.began.elapsed().as_millis() as i64),
        }
    }
}

impl Connection {
    /// Connects, authenticates, and looks whether the server is of the right kind.
    pub(super) fn open(
        server: &Address,
        options: &ConnectOptions,
        clock: &Arc<ServerClock>,
        deadline: Instant,
    ) -> Result<Connection, Failure> {
        let stream = DeadlineStream::connect(server, deadline)
            .and_then(|stream| match &options.tls {
                None => Ok(Box::new(stream) as Box<dyn Stream>),
                Some(tls) => tls.wrap(stream, server),
            })
            .map_err(|error| io_error(SendState::NotConnected, &error, server))?;
        let mut connection = Connection {
            server: server.clone(),
            clock: Arc::clone(clock),
            stream,
            replies: ReplyReader::default(),
            write_buf: Vec::new(),
            confirmed_at: Instant::now(),
            eviction_checked_at: Instant::now(),
        };
        let result = connection.handshake(options, deadline);
        // The password is in it.
        connection.write_buf.zeroize();
        result.map_err(before_call)?;
        Ok(connection)
    }

    fn handshake(&mut self, options: &ConnectOptions, deadline: Instant) -> Result<(), Failure> {
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let db = options.db.to_string();
        if let Some(password) = &options.password {
            let user = options.user.iter().map(|user| user.as_bytes());
            commands.push([&b"AUTH"[..]].into_iter().chain(user).chain([password.0.as_bytes()]).collect());
        }
        if options.db != 0 {
            commands.push(vec![b"SELECT", db.as_bytes()]);
        }
        if options.must_be_master {
            commands.push(vec![b"ROLE"]);
        }
        if options.is_data_node {
            commands.extend([vec![&b"INFO"[..], b"memory"], vec![b"TIME"]]);
        }
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let mut replies = self.call(&commands, deadline)?;
        if let Some(Reply::Error(answer)) = replies.iter().find(|reply| matches!(reply, Reply::Error(_))) {
            return Err(server_error(answer, &self.server));
        }
        if options.is_data_node {
            let time = replies.pop().and_then(|time| time_ms(&time)).ok_or_else(|| protocol_error(&self.server))?;
            self.clock.set(time);
            check_eviction_policy(&replies.pop(), &self.server)?;
        }
        if options.must_be_master && !replies.pop().is_some_and(|role| is_master(&role)) {
            let mut failure = server_error("READONLY", &self.server);
            failure.redirect = Some(Redirect::NotMaster);
            return Err(failure);
        }
        Ok(())
    }

    /// Looks from time to time whether the server still is one that removes nothing.
    pub(super) fn check_eviction(&mut self, deadline: Instant) -> Result<(), Failure> {
        if self.eviction_checked_at.elapsed() < EVICTION_CHECK_INTERVAL {
            return Ok(());
        }
        let info = self.command(&[b"INFO", b"memory"], deadline).map_err(before_call)?;
        check_eviction_policy(&Some(info), &self.server)?;
        self.eviction_checked_at = Instant::now();
        Ok(())
    }

    /// Sends all commands at once and reads the reply of each; a reply may be the server's refusal.
    pub(super) fn call(&mut self, commands: &[&[&[u8]]], deadline: Instant) -> Result<Vec<Reply>, Failure> {
        self.write_buf.clear();
        let mut first_len = 0;
        for parts in commands {
            resp::write_command(&mut self.write_buf, parts);
            if first_len == 0 {
                first_len = self.write_buf.len();
            }
        }
        self.stream.set_deadline(deadline);
        let mut sent = 0;
        while sent < self.write_buf.len() {
            match self.stream.write(&self.write_buf[sent..]) {
                Ok(more) if more > 0 => sent += more,
                failed => {
                    let error = failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    let state = if sent < first_len { SendState::NotSent } else { SendState::Unknown };
                    return Err(io_error(state, &error, &self.server));
                }
            }
        }
        let unknown = |error: io::Error| io_error(SendState::Unknown, &error, &self.server);
        // TLS may have buffered some bytes.
        self.stream.flush().map_err(unknown)?;
        self.write_buf.shrink_to(KEPT_BUFFER);
        let mut replies = Vec::new();
        for _ in commands {
            match self.replies.read_reply(&mut self.stream) {
                Ok(reply) => replies.push(reply),
                Err(error) => {
                    // A server with too many clients says so, and closes the connection.
                    let refusal = replies.first().and_then(Reply::error);
                    return Err(refusal.map_or_else(
                        || io_error(SendState::Unknown, &error, &self.server),
                        |answer| server_error(answer, &self.server).with_state(SendState::Unknown),
                    ));
                }
            }
        }
        Ok(replies)
    }

    /// Sends one command.
    pub(super) fn command(&mut self, parts: &[&[u8]], deadline: Instant) -> Result<Reply, Failure> {
        let replies = self.call(&[parts], deadline)?;
        Ok(replies.into_iter().next().unwrap_or(Reply::Nil))
    }

    /// The server's time, which a script has returned.
    pub(super) fn set_server_time(&self, server_ms: i64) {
        self.clock.set(server_ms);
    }

    pub(super) fn server(&self) -> &Address {
        &self.server
    }

    /// Whether the topology has to be asked again if this is still the right server.
    pub(super) fn is_due_for_confirmation(&self) -> bool {
        self.confirmed_at.elapsed() >= CONFIRMATION_LIFETIME
    }

    pub(super) fn set_confirmed(&mut self) {
        self.confirmed_at = Instant::now();
    }

    /// Whether it is open, and no reply is outstanding.
    pub(super) fn is_reusable(&mut self) -> bool {
        self.replies.is_empty() && self.stream.has_no_pending_input()
    }
}

/// The answer to TIME, in milliseconds.
pub(in crate::engine::redis) fn time_ms(reply: &Reply) -> Option<i64> {
    let number = |i: usize| -> Option<i64> { std::str::from_utf8(reply.array()?.get(i)?.bytes()?).ok()?.parse().ok() };
    Some(number(0)?.checked_mul(1000)? + number(1)? / 1000)
}

/// A failure before the call itself was sent. A connection that is cut may be one of many that an
/// operator closes.
fn before_call(failure: Failure) -> Failure {
    let was_cut = failure.state == SendState::Unknown && failure.error.kind() == ErrorKind::Unavailable;
    failure.with_state(if was_cut { SendState::NotSent } else { SendState::NotConnected })
}

fn is_master(role: &Reply) -> bool {
    role.array().and_then(<[Reply]>::first).and_then(Reply::bytes) == Some(b"master")
}

/// Refuses a server that removes keys when its memory is full. It would remove the index of a
/// principal before its sessions, and `revoke` would not find them.
fn check_eviction_policy(info: &Option<Reply>, server: &Address) -> Result<(), Failure> {
    let info = info.as_ref().and_then(Reply::bytes).and_then(|text| std::str::from_utf8(text).ok());
    let policy = info.and_then(|info| info.lines().find_map(|line| line.strip_prefix("maxmemory_policy:")));
    match policy {
        Some("noeviction") => Ok(()),
        Some(policy) => {
            let policy: String = policy.chars().filter(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let message = format!(
                "the server {server} has 'maxmemory-policy {policy}', with which revoked sessions could live on: it must \
                 be 'noeviction'"
            );
            Err(Failure::new(SendState::Rejected, Error::new(ErrorKind::Unsupported, message)))
        }
        None => Err(protocol_error(server)),
    }
}

/// For how long the server may wait for its replicas so that its answer arrives by the deadline: it
/// looks at its clock ten times a second. In the form that WAIT takes; 0 would be without end.
pub(super) fn replication_wait_ms(left: Duration) -> String {
    const LATENESS: Duration = Duration::from_millis(150);
    left.saturating_sub(LATENESS).max(left / 2).as_millis().max(1).to_string()
}
