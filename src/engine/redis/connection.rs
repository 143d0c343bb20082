//! One connection to one server: commands go out, as many replies come back. After any failure but a server's refusal it
//! must be dropped, because a late reply would be taken for the next one's (CVE-2023-28858).

use std::{
    io::Write,
    time::{Duration, Instant},
};

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
    stream: Stream,
    inbox: Inbox,
    outbox: Vec<u8>,
}

/// The server's time, and when it was that.
pub(super) struct Told {
    pub server_ms: i64,
    pub at: Instant,
}

impl Connection {
    /// Connects, and says who is there. With it comes what the server's clock says.
    pub(super) fn open(server: &Address, login: &Login, until: Instant) -> Result<(Connection, Told), Failure> {
        let not_connected = |error: Failure| Failure { fate: Fate::NotConnected, ..error };
        let stream = Stream::connect(server, until).map_err(|error| failure::io(Fate::NotConnected, &error, server))?;
        let mut connection = Connection { server: server.clone(), stream, inbox: Inbox::default(), outbox: Vec::new() };
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        let db = login.db.to_string();
        if let Some(password) = &login.password {
            let user = login.user.iter().map(|user| user.as_bytes());
            commands.push([&b"AUTH"[..]].into_iter().chain(user).chain([password.0.as_bytes()]).collect());
        }
        if login.db != 0 {
            commands.push(vec![b"SELECT", db.as_bytes()]);
        }
        commands.push(vec![b"TIME"]);
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        let mut replies = connection.call(&commands, until).map_err(not_connected)?;
        if let Some(Reply::Error(answer)) = replies.iter().find(|reply| matches!(reply, Reply::Error(_))) {
            return Err(not_connected(failure::refused(answer, server)));
        }
        let time = replies.pop();
        let number = |i: usize| -> Option<i64> {
            std::str::from_utf8(time.as_ref()?.array()?.get(i)?.bytes()?).ok()?.parse().ok()
        };
        match number(0).zip(number(1)) {
            Some((s, us)) => Ok((connection, Told { server_ms: s * 1000 + us / 1000, at: Instant::now() })),
            None => Err(not_connected(failure::nonsense(server))),
        }
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
        self.outbox.shrink_to(KEPT);
        let replies: std::io::Result<Vec<Reply>> =
            commands.iter().map(|_| self.inbox.reply(&mut self.stream)).collect();
        replies.map_err(|error| failure::io(Fate::Unknown, &error, &self.server))
    }

    pub(super) fn server(&self) -> &Address {
        &self.server
    }

    /// Whether it is open, and no reply is on its way that nobody waits for.
    pub(super) fn is_fresh(&self) -> bool {
        self.inbox.is_empty() && self.stream.is_quiet()
    }
}

/// For how long the server may wait for its replicas if its answer is to be here in time: it looks at its clock ten times a
/// second. As WAIT takes it; 0 would be for ever.
pub(super) fn wait_ms(left: Duration) -> String {
    const LATE: Duration = Duration::from_millis(150);
    left.saturating_sub(LATE).max(left / 2).as_millis().max(1).to_string()
}
