//! One connection to one server: commands go out, as many replies come back. After any failure but a server's refusal it
//! must be dropped, because a late reply would be taken for the next one's (CVE-2023-28858).

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use zeroize::Zeroize;

use super::{
    failure::{self, Failure, Fate},
    resp::{self, Inbox, Reply},
    servers::{Address, Login},
    stream::Stream,
};

/// Longer ones are not kept for the next call.
const KEPT: usize = 64 << 10;

pub(super) struct Connection {
    server: Address,
    clock: Arc<Clock>,
    stream: Stream,
    inbox: Inbox,
    outbox: Vec<u8>,
}

/// What the server's clock says, by the last that was heard of it: a little late, by the way of a reply.
pub(super) struct Clock {
    began: Instant,
    /// From milliseconds since then to the server's time; `i64::MIN`: nothing was heard yet.
    offset_ms: AtomicI64,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { began: Instant::now(), offset_ms: AtomicI64::new(i64::MIN) }
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
    /// Connects, says who is there, and asks the server for the time.
    pub(super) fn open(
        server: &Address,
        login: &Login,
        clock: &Arc<Clock>,
        until: Instant,
    ) -> Result<Connection, Failure> {
        let not_connected = |error: Failure| Failure { fate: Fate::NotConnected, ..error };
        let stream = Stream::connect(server, login.tls.as_ref(), until)
            .map_err(|error| failure::io(Fate::NotConnected, &error, server))?;
        let mut connection = Connection {
            server: server.clone(),
            clock: Arc::clone(clock),
            stream,
            inbox: Inbox::default(),
            outbox: Vec::new(),
        };
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let db = login.db.to_string();
        if let Some(password) = &login.password {
            let user = login.user.iter().map(|user| user.as_bytes());
            commands.push([&b"AUTH"[..]].into_iter().chain(user).chain([password.0.as_bytes()]).collect());
        }
        if login.db != 0 {
            commands.push(vec![b"SELECT", db.as_bytes()]);
        }
        if login.keeps_sessions {
            commands.push(vec![b"TIME"]);
        }
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let replies = connection.call(&commands, until);
        // The password is in it.
        connection.outbox.zeroize();
        let mut replies = replies.map_err(not_connected)?;
        if let Some(Reply::Error(answer)) = replies.iter().find(|reply| matches!(reply, Reply::Error(_))) {
            return Err(not_connected(failure::refused(answer, server)));
        }
        if !login.keeps_sessions {
            return Ok(connection);
        }
        let time = replies.pop();
        let number = |i: usize| -> Option<i64> {
            std::str::from_utf8(time.as_ref()?.array()?.get(i)?.bytes()?).ok()?.parse().ok()
        };
        let (s, us) = number(0).zip(number(1)).ok_or_else(|| not_connected(failure::nonsense(server)))?;
        clock.set(s * 1000 + us / 1000);
        Ok(connection)
    }

    /// Sends all commands at once and reads the reply of each; a reply may be the server's refusal.
    pub(super) fn call(&mut self, commands: &[&[&[u8]]], until: Instant) -> Result<Vec<Reply>, Failure> {
        self.outbox.clear();
        let mut first = 0;
        for parts in commands {
            resp::command(&mut self.outbox, parts);
            if first == 0 {
                first = self.outbox.len();
            }
        }
        self.stream.end_at(until);
        let mut sent = 0;
        while sent < self.outbox.len() {
            match self.stream.write(&self.outbox[sent..]) {
                Ok(more) if more > 0 => sent += more,
                failed => {
                    let error = failed.err().unwrap_or_else(|| std::io::ErrorKind::WriteZero.into());
                    let fate = if sent < first { Fate::NotSent } else { Fate::Unknown };
                    return Err(failure::io(fate, &error, &self.server));
                }
            }
        }
        // Where bytes are encrypted on their way, some may still be here.
        self.stream.flush().map_err(|error| failure::io(Fate::Unknown, &error, &self.server))?;
        self.outbox.shrink_to(KEPT);
        let replies: std::io::Result<Vec<Reply>> =
            commands.iter().map(|_| self.inbox.reply(&mut self.stream)).collect();
        replies.map_err(|error| failure::io(Fate::Unknown, &error, &self.server))
    }

    /// What a script has told of the server's time.
    pub(super) fn tell(&self, server_ms: i64) {
        self.clock.set(server_ms);
    }

    pub(super) fn server(&self) -> &Address {
        &self.server
    }

    /// Whether it is open, and no reply is on its way that nobody waits for.
    pub(super) fn is_fresh(&mut self) -> bool {
        self.inbox.is_empty() && self.stream.is_quiet()
    }
}

/// For how long the server may wait for its replicas if its answer is to be here in time: it looks at its clock ten times a
/// second. As WAIT takes it; 0 would be for ever.
pub(super) fn wait_ms(left: Duration) -> String {
    const LATE: Duration = Duration::from_millis(150);
    left.saturating_sub(LATE).max(left / 2).as_millis().max(1).to_string()
}
