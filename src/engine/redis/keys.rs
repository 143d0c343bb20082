//! The names of keys in the server, and the members of a principal's index. The part in braces
//! decides where a Cluster has a key: a session is one key, whatever happens to it.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::session::{
    codec::EngineFields,
    key::{LookupKey, PrincipalKey, Ref},
};

/// The length of a key in a name: 32 bytes in base64url.
pub(super) const SPELLED_KEY: usize = 43;
/// The first character of a lock among the members of an index: none of base64url.
const LOCK_MARK: u8 = b'!';

pub(super) struct KeyNames<'a> {
    pub prefix: &'a str,
}

impl KeyNames<'_> {
    /// A session, or where the old id of a renewed one leads.
    pub(super) fn session(&self, key: &LookupKey) -> Vec<u8> {
        self.name("s", &key.bytes())
    }

    /// The index of a principal's sessions.
    pub(super) fn index(&self, principal: PrincipalKey) -> Vec<u8> {
        self.name("p", &principal.bytes())
    }

    /// The start of the names of sessions.
    pub(super) fn session_start(&self) -> Vec<u8> {
        format!("{}s:{{", self.prefix).into_bytes()
    }

    /// The calls that are ending all sessions.
    pub(super) fn revocations(&self) -> Vec<u8> {
        format!("{}revocations", self.prefix).into_bytes()
    }

    /// The manual clock of a test.
    pub(super) fn clock(&self) -> Vec<u8> {
        format!("{}clock", self.prefix).into_bytes()
    }

    pub(super) fn session_pattern(&self) -> Vec<u8> {
        format!("{}s:{{*}}", self.prefix).into_bytes()
    }

    pub(super) fn index_pattern(&self) -> Vec<u8> {
        format!("{}p:{{*}}", self.prefix).into_bytes()
    }

    /// The key in the name of a session or an index.
    pub(super) fn parse(&self, name: &[u8]) -> Option<[u8; 32]> {
        unspell(name.get(self.prefix.len() + "s:{".len()..)?.strip_suffix(b"}")?)
    }

    fn name(&self, kind: &str, key: &[u8; 32]) -> Vec<u8> {
        [self.prefix.as_bytes(), kind.as_bytes(), b":{", &spell(key), b"}"].concat()
    }
}

fn spell(key: &[u8; 32]) -> [u8; SPELLED_KEY] {
    let mut spelled = [0; SPELLED_KEY];
    // It fits: 32 bytes are 43 characters.
    let fits = Base64UrlUnpadded::encode(key, &mut spelled).is_ok();
    debug_assert!(fits);
    spelled
}

fn unspell(spelled: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 33];
    Base64UrlUnpadded::decode(spelled, &mut bytes).ok()?.try_into().ok()
}

/// The number of an index entry in the fields that a record has for its engine: microseconds, which
/// repeat after nine years.
pub(super) fn entry_number(us: u64) -> EngineFields {
    EngineFields { last_used_slot: us as u32, generation: (us >> 32) as u16, indexed_deadline: 0 }
}

/// A session as a member of its principal's index: its spelled key, and the number as it is in its
/// record. The Lua scripts have the same layout.
pub(super) fn index_member(key: &LookupKey, fields: &EngineFields) -> Vec<u8> {
    [&spell(&key.bytes())[..], &entry_number_bytes(fields)].concat()
}

pub(super) fn entry_number_bytes(fields: &EngineFields) -> [u8; 6] {
    let [a, b] = fields.generation.to_le_bytes();
    let [c, d, e, f] = fields.last_used_slot.to_le_bytes();
    [a, b, c, d, e, f]
}

/// How long ago an index member was made; 0 if that is later than `now_ms`, by a clock that is ahead
/// or within the same millisecond.
pub(super) fn member_age_ms(member: &[u8], now_ms: i64) -> u64 {
    let Some(&[a, b, c, d, e, f]) = member.get(SPELLED_KEY..).and_then(|number| number.first_chunk()) else {
        return 0;
    };
    let made_us = u64::from_le_bytes([c, d, e, f, a, b, 0, 0]);
    // Numbers have the time's last 48 bits. An age of more than half of their range is negative.
    let age_us = now_ms.unsigned_abs().saturating_mul(1000).wrapping_sub(made_us) & 0xFFFF_FFFF_FFFF;
    if age_us < 1 << 47 { age_us / 1000 } else { 0 }
}

/// The session of an index member; `None` for a lock.
pub(super) fn member_key(member: &[u8]) -> Option<LookupKey> {
    unspell(member.get(..SPELLED_KEY)?).map(|key| LookupKey::from(&Ref(key)))
}

/// A lock as a member of an index. The token tells its owner's from others.
pub(super) fn lock_member(token: &[u8; 16]) -> Vec<u8> {
    [&[LOCK_MARK][..], token].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_round_trips_to_key() {
        let names = KeyNames { prefix: "app:1:" };
        let key = LookupKey(1 << 100, 7);
        let name = names.session(&key);
        assert_eq!(names.parse(&name), Some(key.bytes()));
        assert!(name.starts_with(&names.session_start()));
        assert_eq!(names.parse(b"app:1:s:{AAAA}"), None);
        assert_eq!(names.parse(b"app"), None);
    }

    #[test]
    fn index_member_round_trips_to_key() {
        let member = index_member(&LookupKey(3, 4), &entry_number(0x0605_0403_0201));
        assert_eq!(member_key(&member), Some(LookupKey(3, 4)));
        assert_eq!(member[SPELLED_KEY..], [5, 6, 1, 2, 3, 4], "as in a record");
        assert_eq!(member_key(&member[..SPELLED_KEY - 1]), None);
        assert_eq!(member_key(&lock_member(&[b'A'; 16])), None);
    }

    #[test]
    fn index_member_gives_its_age() {
        let made_ms = 1_790_000_000_000;
        let member = index_member(&LookupKey(3, 4), &entry_number(made_ms as u64 * 1000));
        assert_eq!(member_age_ms(&member, made_ms + 5), 5);
        let in_this_ms = index_member(&LookupKey(3, 4), &entry_number(made_ms as u64 * 1000 + 999));
        assert_eq!(member_age_ms(&in_this_ms, made_ms), 0);
        assert_eq!(member_age_ms(&member, made_ms - 60_000), 0);
    }
}
