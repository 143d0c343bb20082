//! The servers of a Cluster: each has some of 16384 slots of keys. The map is learned from any of
//! them and corrected by their answers.
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use super::{RateLimiter, Retry, Topology, share_of};
use crate::{
    engine::redis::client::{
        address::Address,
        error::{Failure, Redirect, SendState},
        pool::{Pool, Pools},
        resp::Reply,
    },
    error::{Error, ErrorKind, Result},
};

const SLOTS: u16 = 16384;
/// Before a call is sent again to a server that could not execute it yet.
const PAUSE: Duration = Duration::from_millis(10);

pub(in crate::engine::redis::client) struct Cluster {
    seeds: Vec<Address>,
    pools: Pools,
    slots: SlotMap,
    limiter: RateLimiter,
}

impl Cluster {
    pub(in crate::engine::redis::client) fn new(seeds: Vec<Address>, pools: Pools) -> Cluster {
        Cluster { seeds, pools, slots: SlotMap::new(), limiter: RateLimiter::new() }
    }

    /// Asks the servers, one after the other, until one knows all slots; but not too often.
    fn refresh(&self, deadline: Instant) {
        if !self.limiter.try_acquire() {
            return;
        }
        for address in self.slots.servers().iter().chain(&self.seeds) {
            let soon = share_of(deadline);
            let answer = self.pools.at(address).with_connection(
                soon,
                || Ok(()),
                |connection| connection.command(&[b"CLUSTER", b"SLOTS"], soon),
            );
            if answer.is_ok_and(|answer| self.slots.replace(&answer, address)) {
                return;
            }
        }
    }
}

impl Topology for Cluster {
    fn pool_for(&self, key: &[u8], deadline: Instant) -> Result<Arc<Pool>> {
        let slot = slot_of(key);
        let known = self.slots.server(slot).or_else(|| {
            self.refresh(deadline);
            self.slots.server(slot)
        });
        // Any server redirects to the one that has the slot.
        Ok(self.pools.at(known.as_ref().unwrap_or(&self.seeds[usize::from(slot) % self.seeds.len()])))
    }

    fn pool_at(&self, server: &Address) -> Arc<Pool> {
        self.pools.at(server)
    }

    fn all_pools(&self, deadline: Instant) -> Result<Vec<Arc<Pool>>> {
        self.refresh(deadline);
        let mut servers = self.slots.servers();
        // Another call may be asking for them.
        while servers.is_empty() {
            if Instant::now() + PAUSE > deadline {
                return Err(Error::fixed(ErrorKind::Unavailable, "no server of the cluster can be reached"));
            }
            thread::sleep(PAUSE);
            self.refresh(deadline);
            servers = self.slots.servers();
        }
        Ok(servers.iter().map(|server| self.pools.at(server)).collect())
    }

    fn spans_servers(&self) -> bool {
        true
    }

    fn retry(&self, key: &[u8], failure: &Failure, deadline: Instant) -> Option<Retry> {
        match &failure.redirect {
            Some(Redirect::Moved(slot, server)) => {
                self.slots.set(*slot, server.clone());
                Some(Retry::Same)
            }
            Some(Redirect::Ask(server)) => Some(Retry::Ask(server.clone())),
            Some(Redirect::Later) => {
                thread::sleep(PAUSE);
                Some(Retry::Same)
            }
            // A replica may have taken over.
            None if failure.state == SendState::NotConnected => {
                let slot = slot_of(key);
                let before = self.slots.server(slot);
                self.refresh(deadline);
                (self.slots.server(slot) != before).then_some(Retry::Same)
            }
            _ => None,
        }
    }
}

/// Which server has each slot.
struct SlotMap(RwLock<Vec<Option<Address>>>);

impl SlotMap {
    fn new() -> SlotMap {
        SlotMap(RwLock::new(vec![None; usize::from(SLOTS)]))
    }

    fn server(&self, slot: u16) -> Option<Address> {
        self.read()[usize::from(slot % SLOTS)].clone()
    }

    fn set(&self, slot: u16, server: Address) {
        self.write()[usize::from(slot % SLOTS)] = Some(server);
    }

    /// All servers that have a slot.
    fn servers(&self) -> Vec<Address> {
        let mut servers: Vec<Address> = Vec::new();
        for server in self.read().iter().flatten() {
            if !servers.contains(server) {
                servers.push(server.clone());
            }
        }
        servers
    }

    /// Takes over the answer to CLUSTER SLOTS. False if it is none, or that of a server that knows
    /// no slots.
    fn replace(&self, answer: &Reply, from: &Address) -> bool {
        let mut slots = vec![None; usize::from(SLOTS)];
        let ranges = answer.array().unwrap_or_default();
        for range in ranges {
            let Some([first, last, master, ..]) = range.array() else { return false };
            let (Some(first @ 0..16384), Some(last @ 0..16384)) = (first.int(), last.int()) else { return false };
            let Some([host, port, ..]) = master.array() else { return false };
            let Some(server) = Address::from_peer(host.bytes(), port.int(), from) else { return false };
            for slot in slots.iter_mut().take(last as usize + 1).skip(first as usize) {
                *slot = Some(server.clone());
            }
        }
        *self.write() = slots;
        !ranges.is_empty()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Option<Address>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Option<Address>>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The slot of a key: that of the part in braces, if there is one.
fn slot_of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').map(|open| &key[open + 1..]);
    let tag = tag.and_then(|rest| Some(&rest[..rest.iter().position(|&byte| byte == b'}').filter(|&at| at > 0)?]));
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::Host;

    fn at(name: &str, port: u16) -> Address {
        Address::Tcp(Host { name: name.to_owned(), port })
    }

    #[test]
    fn slots_follow_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(slot_of(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot_of(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot_of(b"foo{bar}{zap}"), crc16(b"bar") % SLOTS);
    }

    #[test]
    fn slot_map_is_replaced_as_a_whole() {
        let map = SlotMap::new();
        let node = |port| Reply::Array(vec![Reply::Bytes(b"h".to_vec()), Reply::Int(port), Reply::Bytes(vec![])]);
        let range = |first, last, port| Reply::Array(vec![Reply::Int(first), Reply::Int(last), node(port), node(9)]);
        assert!(map.replace(&Reply::Array(vec![range(0, 99, 1), range(100, 16383, 2)]), &at("x", 1)));
        assert_eq!((map.server(99), map.server(100)), (Some(at("h", 1)), Some(at("h", 2))));
        assert_eq!(map.servers(), [at("h", 1), at("h", 2)]);
        assert!(!map.replace(&Reply::Array(vec![range(0, 16384, 1)]), &at("x", 1)));
        assert!(!map.replace(&Reply::Nil, &at("x", 1)));
    }
}
