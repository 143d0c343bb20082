//! The server that Sentinels name as the master. They are asked before every new connection, and
//! once a second for an open one: a master that comes back after a failover takes itself for the
//! master until a Sentinel tells it otherwise.
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use super::{RateLimiter, Retry, Topology, share_of};
use crate::{
    engine::redis::client::{
        address::Address,
        connection::Connection,
        error::{Failure, Redirect, SendState, protocol_error, server_error},
        options::ConnectOptions,
        pool::{Pool, Pools},
        resp::Reply,
    },
    error::{Error, ErrorKind, Result},
};

pub(in crate::engine::redis::client) struct Sentinel {
    sentinels: Vec<Address>,
    master_name: String,
    sentinel_pools: Pools,
    data_pools: Pools,
    master: RwLock<Option<Address>>,
    limiter: RateLimiter,
}

impl Sentinel {
    pub(in crate::engine::redis::client) fn new(
        sentinels: Vec<Address>,
        master_name: String,
        sentinel: ConnectOptions,
        data: ConnectOptions,
        pool_size: usize,
    ) -> Sentinel {
        Sentinel {
            sentinels,
            master_name,
            sentinel_pools: Pools::new(sentinel, pool_size),
            data_pools: Pools::new(data, pool_size),
            master: RwLock::new(None),
            limiter: RateLimiter::new(),
        }
    }

    fn known_master(&self) -> Option<Address> {
        self.master.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks the Sentinels, one after the other, until one knows the master.
    fn ask_master(&self, deadline: Instant) -> Result<Address> {
        let mut failures = Vec::new();
        for sentinel in &self.sentinels {
            let soon = share_of(deadline);
            let answer = self.sentinel_pools.at(sentinel).with_connection(
                soon,
                || Ok(()),
                |connection| query_master(connection, &self.master_name, soon),
            );
            match answer {
                Ok(address) => {
                    *self.master.write().unwrap_or_else(PoisonError::into_inner) = Some(address.clone());
                    return Ok(address);
                }
                Err(failure) => failures.push(failure.error.to_string()),
            }
        }
        let how = if self.sentinel_pools.options().password.is_some() { "with" } else { "without" };
        let message = format!(
            "no Sentinel, asked {how} sentinel_password=, knows the master '{}': {}",
            self.master_name,
            failures.join("; ")
        );
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

impl Topology for Sentinel {
    fn pool_for(&self, _: &[u8], deadline: Instant) -> Result<Arc<Pool>> {
        let master = match self.known_master() {
            Some(master) => master,
            None => self.ask_master(deadline)?,
        };
        Ok(self.data_pools.at(&master))
    }

    fn pool_at(&self, server: &Address) -> Arc<Pool> {
        self.data_pools.at(server)
    }

    fn all_pools(&self, deadline: Instant) -> Result<Vec<Arc<Pool>>> {
        Ok(vec![self.pool_for(b"", deadline)?])
    }

    fn confirm(&self, server: &Address, deadline: Instant) -> Result<(), Failure> {
        let master = self.ask_master(deadline).map_err(|error| Failure::new(SendState::NotConnected, error))?;
        if master == *server {
            return Ok(());
        }
        let message = format!("the server {server} is no longer the master");
        let mut failure = Failure::new(SendState::NotConnected, Error::new(ErrorKind::Unavailable, message));
        failure.redirect = Some(Redirect::NewMaster);
        Err(failure)
    }

    fn retry(&self, _: &[u8], failure: &Failure, deadline: Instant) -> Option<Retry> {
        let was_not_executed = failure.state != SendState::Unknown;
        match failure.redirect {
            Some(Redirect::NewMaster) => Some(Retry::Same),
            Some(Redirect::NotMaster) | None
                if was_not_executed && failure.is_of_server()
                    || matches!(failure.redirect, Some(Redirect::NotMaster)) =>
            {
                let before = self.known_master();
                let now = self.limiter.try_acquire().then(|| self.ask_master(deadline).ok()).flatten();
                (now.is_some() && now != before).then_some(Retry::Same)
            }
            _ => None,
        }
    }
}

fn query_master(connection: &mut Connection, name: &str, deadline: Instant) -> Result<Address, Failure> {
    let reply = connection.command(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name.as_bytes()], deadline)?;
    let sentinel = connection.server();
    match (&reply, reply.array()) {
        (Reply::Error(answer), _) => Err(server_error(answer, sentinel)),
        (Reply::Nil, _) => {
            let message = format!("the server {sentinel} knows no master '{name}'");
            Err(Failure::new(SendState::Rejected, Error::new(ErrorKind::Unavailable, message)))
        }
        (_, Some([host, port])) => {
            Address::from_peer(host.bytes(), parse_port(port), sentinel).ok_or_else(|| protocol_error(sentinel))
        }
        _ => Err(protocol_error(sentinel)),
    }
}

fn parse_port(reply: &Reply) -> Option<i64> {
    std::str::from_utf8(reply.bytes()?).ok()?.parse().ok()
}
