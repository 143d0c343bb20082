//! The connections of this process to one server: no more than so many, each used by one call at a time, and dropped
//! unless the call has come to its end. While the server is down calls fail at once, and one in a while tries it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{
    connection::{Clock, Connection},
    failure::{Detour, Failure, Fate},
    servers::{Address, Login},
};
use crate::error::{Error, ErrorKind};

/// So many failures in a row, and the server is down.
const LIMIT: u32 = 3;
/// How often a server that is down is tried.
const PROBE: Duration = Duration::from_millis(250);

pub(super) struct Pool {
    server: Address,
    size: usize,
    connections: Mutex<Connections>,
    freed: Condvar,
    breaker: Breaker,
    clock: Arc<Clock>,
}

struct Connections {
    idle: Vec<Connection>,
    /// Idle or in use.
    open: usize,
}

impl Pool {
    pub(super) fn new(server: Address, size: usize) -> Pool {
        Pool {
            server,
            size,
            connections: Mutex::new(Connections { idle: Vec::new(), open: 0 }),
            freed: Condvar::new(),
            breaker: Breaker::new(),
            clock: Arc::new(Clock::new()),
        }
    }

    /// Has a connection do something.
    pub(super) fn with<T>(
        &self,
        login: &Login,
        until: Instant,
        call: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if !self.breaker.admits() {
            let message = format!("the server {} is down: it was tried a moment ago", self.server);
            return Err(Failure::new(Fate::NotConnected, Error::new(ErrorKind::Unavailable, message)));
        }
        let mut place = self.place(until)?;
        let result = place.connection(login, until).and_then(call);
        match &result {
            Err(failure) if failure.fate != Fate::Refused => self.breaker.failed(),
            Err(Failure { detour: Some(Detour::Elsewhere), .. }) => {
                self.breaker.worked();
                self.close_idle();
            }
            _ => {
                self.breaker.worked();
                place.keep();
            }
        }
        result
    }

    /// For a server that is not the master any more: its name may lead to another by now, which shows to who connects anew.
    fn close_idle(&self) {
        let mut connections = self.connections.lock();
        let idle = std::mem::take(&mut connections.idle);
        connections.open -= idle.len();
        drop(connections);
        drop(idle);
    }

    /// About what the server's clock says, if it was ever asked.
    pub(super) fn now_ms(&self) -> Option<i64> {
        self.clock.now_ms()
    }

    /// A place for a connection, with one in it if one is idle and still good.
    fn place(&self, until: Instant) -> Result<Place<'_>, Failure> {
        loop {
            let mut place = self.next(until)?;
            // Asking the system takes long enough that nobody is to wait for it. One that is not good goes with its place.
            if place.connection.as_mut().is_none_or(Connection::is_fresh) {
                return Ok(place);
            }
        }
    }

    /// The next place that is free.
    fn next(&self, until: Instant) -> Result<Place<'_>, Failure> {
        let mut connections = self.connections.lock();
        loop {
            // The one that was used last: those that are too many come to rest.
            let connection = connections.idle.pop();
            if connection.is_some() || connections.open < self.size {
                connections.open += usize::from(connection.is_none());
                return Ok(Place { pool: self, connection, is_kept: false });
            }
            if self.freed.wait_until(&mut connections, until).timed_out() {
                let message = format!("all {} connections (pool=) to the server {} are in use", self.size, self.server);
                return Err(Failure::new(Fate::NotConnected, Error::new(ErrorKind::Timeout, message)));
            }
        }
    }
}

/// The right to one connection. Whatever happens, the place is free again afterwards.
struct Place<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    is_kept: bool,
}

impl Place<'_> {
    fn connection(&mut self, login: &Login, until: Instant) -> Result<&mut Connection, Failure> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(&self.pool.server, login, &self.pool.clock, until)?);
        }
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => unreachable!("it was put there just now"),
        }
    }

    fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut connections = self.pool.connections.lock();
        match self.connection.take().filter(|_| self.is_kept) {
            Some(connection) => connections.idle.push(connection),
            None => connections.open -= 1,
        }
        drop(connections);
        self.pool.freed.notify_one();
    }
}

/// Opens when a server has failed so often in a row that it is down, and closes when it has answered once.
struct Breaker {
    failures: AtomicU32,
    began: Instant,
    /// Milliseconds since then.
    try_at: AtomicU64,
}

impl Breaker {
    fn new() -> Breaker {
        Breaker { failures: AtomicU32::new(0), began: Instant::now(), try_at: AtomicU64::new(0) }
    }

    /// Whether a call may try the server.
    fn admits(&self) -> bool {
        if self.failures.load(Ordering::Relaxed) < LIMIT {
            return true;
        }
        let (now, try_at) = (self.now(), self.try_at.load(Ordering::Relaxed));
        let next = now + PROBE.as_millis() as u64;
        now >= try_at && self.try_at.compare_exchange(try_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn failed(&self) {
        self.try_at.store(self.now() + PROBE.as_millis() as u64, Ordering::Relaxed);
        let more = |failures: u32| Some(failures.saturating_add(1));
        // The closure always gives a value, so there is no error to look at.
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_down_is_tried_by_one_call_in_a_while_until_it_answers() {
        let breaker = Breaker::new();
        for _ in 0..LIMIT {
            assert!(breaker.admits());
            breaker.failed();
        }
        assert!(!breaker.admits(), "it has failed just now");
        // As if the time had passed.
        breaker.try_at.store(0, Ordering::Relaxed);
        assert_eq!([(); 10].map(|()| breaker.admits()).iter().filter(|admitted| **admitted).count(), 1);
        breaker.failed();
        assert!(!breaker.admits());
        breaker.worked();
        assert!(breaker.admits());
    }
}
