//! Where a Cluster has which key: learned from any of its servers, and corrected by what they answer.
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use parking_lot::RwLock;

use super::{resp::Reply, servers::Address};
use crate::url::Host;

const SLOTS: u16 = 16384;

/// Which server has each slot.
pub(super) struct Map(RwLock<Vec<Option<Address>>>);

impl Map {
    pub(super) fn new() -> Map {
        Map(RwLock::new(vec![None; usize::from(SLOTS)]))
    }

    pub(super) fn address(&self, slot: u16) -> Option<Address> {
        self.0.read()[usize::from(slot % SLOTS)].clone()
    }

    pub(super) fn learn(&self, slot: u16, address: Address) {
        self.0.write()[usize::from(slot % SLOTS)] = Some(address);
    }

    /// All servers that have a slot.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let mut addresses: Vec<Address> = Vec::new();
        for address in self.0.read().iter().flatten() {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Takes over the answer to CLUSTER SLOTS. False: it is none, or of a server that knows none.
    pub(super) fn learn_all(&self, answer: &Reply, from: &Address) -> bool {
        let mut slots = vec![None; usize::from(SLOTS)];
        let ranges = answer.array().unwrap_or_default();
        for range in ranges {
            let Some([first, last, master, ..]) = range.array() else { return false };
            let bounds = (first.int(), last.int(), master.array());
            let (Some(first @ 0..16384), Some(last @ 0..16384), Some([host, port, ..])) = bounds else { return false };
            let Some(address) = address(host.bytes(), port.int(), from) else { return false };
            slots.iter_mut().take(last as usize + 1).skip(first as usize).for_each(|it| *it = Some(address.clone()));
        }
        *self.0.write() = slots;
        !ranges.is_empty()
    }
}

/// A server as others call it.
pub(super) fn address(host: Option<&[u8]>, port: Option<i64>, from: &Address) -> Option<Address> {
    let name = std::str::from_utf8(host.unwrap_or_default()).ok()?;
    let name = match (name, from) {
        // A server that does not know its own name.
        ("" | "?", Address::Tcp(host)) => &host.name,
        _ => name,
    };
    Some(Address::Tcp(Host { name: name.to_owned(), port: u16::try_from(port?).ok().filter(|&port| port > 0)? }))
}

/// `MOVED 3999 127.0.0.1:6381` or `ASK …`: the slot, and who has it.
pub(super) fn redirection(answer: &str, from: &Address) -> Option<(u16, Address)> {
    let mut words = answer.split(' ').skip(1);
    let (slot, (host, port)) = (words.next()?.parse().ok()?, words.next()?.rsplit_once(':')?);
    Some((slot, address(Some(host.as_bytes()), port.parse().ok(), from)?))
}

/// The slot of a key: of what is in braces, if something is.
pub(super) fn slot(key: &[u8]) -> u16 {
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

    fn at(name: &str, port: u16) -> Address {
        Address::Tcp(Host { name: name.to_owned(), port })
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
        assert_eq!(slot(b"foo{}{bar}"), crc16(b"foo{}{bar}") % SLOTS);
        assert_eq!(slot(b"foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
        assert_eq!(slot(b"foo{bar}{zap}"), crc16(b"bar") % SLOTS);
    }

    #[test]
    fn a_redirection_says_who_has_the_slot() {
        let from = at("h", 1);
        assert_eq!(redirection("MOVED 3999 127.0.0.1:6381", &from), Some((3999, at("127.0.0.1", 6381))));
        assert_eq!(redirection("ASK 3999 ::1:6381", &from), Some((3999, at("::1", 6381))));
        assert_eq!(redirection("MOVED 3999 :6381", &from), Some((3999, at("h", 6381))));
        for bad in ["MOVED", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:0", "MOVED 1 h:99999"] {
            assert_eq!(redirection(bad, &from), None, "{bad}");
        }
    }

    #[test]
    fn a_map_is_taken_over_as_a_whole() {
        let map = Map::new();
        let node = |port| Reply::Array(vec![Reply::Bytes(b"h".to_vec()), Reply::Int(port), Reply::Bytes(vec![])]);
        let range = |first, last, port| Reply::Array(vec![Reply::Int(first), Reply::Int(last), node(port), node(9)]);
        assert!(map.learn_all(&Reply::Array(vec![range(0, 99, 1), range(100, 16383, 2)]), &at("x", 1)));
        assert_eq!((map.address(99), map.address(100)), (Some(at("h", 1)), Some(at("h", 2))));
        assert_eq!(map.addresses(), [at("h", 1), at("h", 2)]);
        assert!(!map.learn_all(&Reply::Array(vec![range(0, 16384, 1)]), &at("x", 1)));
        assert!(!map.learn_all(&Reply::Nil, &at("x", 1)));
    }
}
