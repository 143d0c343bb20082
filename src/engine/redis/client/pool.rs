//! The connections of this process to one server: a limited number, each used by one call at a time
//! and dropped unless the call came to its end. Waits in the standard library's locks, because
//! parking_lot's table of waiting threads is copied by fork.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    address::Address,
    breaker::Breaker,
    connection::{Connection, ServerClock},
    error::{Failure, Redirect, SendState},
    options::ConnectOptions,
};
use crate::error::{Error, ErrorKind};

pub(super) struct Pool {
    server: Address,
    options: Arc<ConnectOptions>,
    size: usize,
    connections: Mutex<Connections>,
    freed: Condvar,
    breaker: Breaker,
    clock: Arc<ServerClock>,
}

struct Connections {
    idle: Vec<Connection>,
    /// Idle or in use.
    open: usize,
}

impl Pool {
    pub(super) fn new(server: Address, options: Arc<ConnectOptions>, size: usize) -> Pool {
        Pool {
            server,
            options,
            size,
            connections: Mutex::new(Connections { idle: Vec::new(), open: 0 }),
            freed: Condvar::new(),
            breaker: Breaker::new(),
            clock: Arc::new(ServerClock::new()),
        }
    }

    pub(super) fn server(&self) -> &Address {
        &self.server
    }

    /// About what the server's clock says, if it was ever asked.
    pub(super) fn now_ms(&self) -> Option<i64> {
        self.clock.now_ms()
    }

    /// Runs `call` with a connection. `confirm` is asked before a new one is made, and once a
    /// second for an open one: a server that was stopped or cut off may have been replaced since.
    pub(super) fn with_connection<T>(
        &self,
        deadline: Instant,
        confirm: impl FnOnce() -> Result<(), Failure>,
        call: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if !self.breaker.allow() {
            let message = format!("{}, and is not tried again yet", self.breaker.last_error());
            return Err(Failure::new(SendState::NotConnected, Error::new(ErrorKind::Unavailable, message)));
        }
        let mut checkout = self.checkout(deadline)?;
        match &mut checkout.connection {
            None => confirm()?,
            Some(connection) if connection.is_due_for_confirmation() => match confirm() {
                Err(failure) if matches!(failure.redirect, Some(Redirect::NewMaster)) => {
                    self.close_idle();
                    return Err(failure);
                }
                // Without an answer, an open connection is as good as before.
                _ => connection.set_confirmed(),
            },
            Some(_) => {}
        }
        let result = checkout.connection(deadline).and_then(|connection| {
            if self.options.is_data_node {
                connection.check_eviction(deadline)?;
            }
            call(connection)
        });
        match &result {
            Err(failure) if failure.is_of_server() => self.breaker.on_failure(&failure.error),
            // Cut: the connection is dropped, and the next one will show whether the server is
            // there.
            Err(failure) if failure.state != SendState::Rejected => {}
            Err(Failure { redirect: Some(Redirect::NotMaster), .. }) => {
                self.breaker.on_success();
                self.close_idle();
            }
            _ => {
                self.breaker.on_success();
                checkout.is_kept = true;
            }
        }
        result
    }

    /// For a server that is no longer the master: its name may lead to another one, which a new
    /// connection finds.
    fn close_idle(&self) {
        let mut connections = self.lock();
        let idle = std::mem::take(&mut connections.idle);
        connections.open -= idle.len();
        drop(connections);
        drop(idle);
    }

    /// The right to one connection, with an idle one in it if one is still good.
    fn checkout(&self, deadline: Instant) -> Result<Checkout<'_>, Failure> {
        loop {
            let mut checkout = self.next_checkout(deadline)?;
            // A system call, so it is made without the lock. A connection that is not good is
            // dropped.
            if checkout.connection.as_mut().is_none_or(Connection::is_reusable) {
                return Ok(checkout);
            }
        }
    }

    fn next_checkout(&self, deadline: Instant) -> Result<Checkout<'_>, Failure> {
        let mut connections = self.lock();
        loop {
            // The one that was used last: surplus connections stay idle.
            let connection = connections.idle.pop();
            if connection.is_some() || connections.open < self.size {
                connections.open += usize::from(connection.is_none());
                return Ok(Checkout { pool: self, connection, is_kept: false });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = format!("all {} connections (pool=) to the server {} are in use", self.size, self.server);
                return Err(Failure::new(SendState::NotConnected, Error::new(ErrorKind::Timeout, message)));
            }
            (connections, _) = self.freed.wait_timeout(connections, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection, which is given back on drop.
struct Checkout<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
    is_kept: bool,
}

impl Checkout<'_> {
    fn connection(&mut self, deadline: Instant) -> Result<&mut Connection, Failure> {
        let pool = self.pool;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(&pool.server, &pool.options, &pool.clock, deadline)?,
        };
        Ok(self.connection.insert(connection))
    }
}

impl Drop for Checkout<'_> {
    fn drop(&mut self) {
        let mut connections = self.pool.lock();
        match self.connection.take().filter(|_| self.is_kept) {
            Some(connection) => connections.idle.push(connection),
            None => connections.open -= 1,
        }
        drop(connections);
        self.pool.freed.notify_one();
    }
}

/// A pool for each server of one kind.
pub(super) struct Pools {
    options: Arc<ConnectOptions>,
    size: usize,
    pools: Mutex<HashMap<Address, Arc<Pool>>>,
}

impl Pools {
    pub(super) fn new(options: ConnectOptions, size: usize) -> Pools {
        Pools { options: Arc::new(options), size, pools: Mutex::default() }
    }

    pub(super) fn at(&self, server: &Address) -> Arc<Pool> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(server) {
            return Arc::clone(pool);
        }
        let pool = Arc::new(Pool::new(server.clone(), Arc::clone(&self.options), self.size));
        pools.insert(server.clone(), Arc::clone(&pool));
        pool
    }

    pub(super) fn options(&self) -> &ConnectOptions {
        &self.options
    }
}
