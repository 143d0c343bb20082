//! How the keys are called, and how a session is noted in its principal's list. What stands in braces says where in a
//! Cluster a key is: all that a script touches is there together.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::session::{
    codec::EngineFields,
    key::{LookupKey, PrincipalKey, Ref},
};

/// The length of a key in a name.
pub(super) const SPELLED: usize = 43;
pub(super) struct Names<'a> {
    pub prefix: &'a str,
}

impl Names<'_> {
    /// The record of a session.
    pub(super) fn session(&self, key: &LookupKey) -> Vec<u8> {
        self.name("s", &key.bytes())
    }

    /// Where an old id leads to.
    pub(super) fn alias(&self, key: &LookupKey) -> Vec<u8> {
        self.name("a", &key.bytes())
    }

    /// Where an old id reads the session while that is on its way to another server.
    pub(super) fn moving(&self, key: &LookupKey) -> Vec<u8> {
        self.name("m", &key.bytes())
    }

    /// The list of a principal's sessions.
    pub(super) fn principal(&self, principal: PrincipalKey) -> Vec<u8> {
        self.name("p", &principal.bytes())
    }

    /// That a principal's list is closed, because its sessions are being revoked.
    pub(super) fn closed(&self, principal: PrincipalKey) -> Vec<u8> {
        self.name("r", &principal.bytes())
    }

    /// What the names of sessions begin with.
    pub(super) fn of_sessions(&self) -> Vec<u8> {
        format!("{}s:{{", self.prefix).into_bytes()
    }

    /// Where a test's clock is.
    pub(super) fn clock(&self) -> Vec<u8> {
        format!("{}clock", self.prefix).into_bytes()
    }

    pub(super) fn all_sessions(&self) -> Vec<u8> {
        format!("{}s:{{*}}", self.prefix).into_bytes()
    }

    pub(super) fn all_principals(&self) -> Vec<u8> {
        format!("{}p:{{*}}", self.prefix).into_bytes()
    }

    /// The key in a name that one of these has given.
    pub(super) fn key_in(&self, name: &[u8]) -> Option<[u8; 32]> {
        parse(name.get(self.prefix.len() + "s:{".len()..)?.strip_suffix(b"}")?)
    }

    fn name(&self, what: &str, key: &[u8; 32]) -> Vec<u8> {
        [self.prefix.as_bytes(), what.as_bytes(), b":{", &spell(key), b"}"].concat()
    }
}

fn spell(key: &[u8; 32]) -> [u8; SPELLED] {
    let mut spelled = [0; SPELLED];
    // It fits: 32 bytes are 43 characters.
    let fits = Base64UrlUnpadded::encode(key, &mut spelled).is_ok();
    debug_assert!(fits);
    spelled
}

fn parse(spelled: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 33];
    Base64UrlUnpadded::decode(spelled, &mut bytes).ok()?.try_into().ok()
}

/// A number that tells the order of writes, from a time in microseconds: nine years of them, in what a record has for its
/// engine.
pub(super) fn number(us: u64) -> EngineFields {
    EngineFields { last_used_slot: us as u32, generation: (us >> 32) as u16, indexed_deadline: 0 }
}

/// A session in its principal's list: its key as it is spelled in its name, and the number as it is in its record. Whoever
/// writes the lists' scripts knows this.
pub(super) fn member(key: &LookupKey, private: &EngineFields) -> Vec<u8> {
    [&spell(&key.bytes())[..], &number_of(private)].concat()
}

pub(super) fn number_of(private: &EngineFields) -> [u8; 6] {
    let ([a, b], [c, d, e, f]) = (private.generation.to_le_bytes(), private.last_used_slot.to_le_bytes());
    [a, b, c, d, e, f]
}

/// How long ago a member was made, at this time. (The number goes round after nine years.)
pub(super) fn age_ms(member: &[u8], now_ms: i64) -> u64 {
    let Some(&[a, b, c, d, e, f]) = member.get(SPELLED..).and_then(|number| number.first_chunk()) else { return 0 };
    let made_us = u64::from_le_bytes([c, d, e, f, a, b, 0, 0]);
    (now_ms.unsigned_abs().saturating_mul(1000).wrapping_sub(made_us) & 0xFFFF_FFFF_FFFF) / 1000
}

/// The session that a member is of.
pub(super) fn key_of(member: &[u8]) -> Option<LookupKey> {
    parse(member.get(..SPELLED)?).map(|key| LookupKey::from(&Ref(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_key_back() {
        let (names, key) = (Names { prefix: "app:1:" }, LookupKey(1 << 100, 7));
        let name = names.session(&key);
        assert_eq!(names.key_in(&name), Some(key.bytes()));
        assert!(name.starts_with(&names.of_sessions()));
        assert_eq!(names.key_in(b"app:1:s:{AAAA}"), None);
        assert_eq!(names.key_in(b"app"), None);
        let tag = |name: &[u8]| name[name.iter().position(|&c| c == b'{').unwrap()..].to_vec();
        assert_eq!(tag(&name), tag(&names.alias(&key)), "a session and its alias are together");
    }

    #[test]
    fn a_member_gives_its_key_back() {
        let member = member(&LookupKey(3, 4), &number(0x0605_0403_0201));
        assert_eq!(key_of(&member), Some(LookupKey(3, 4)));
        assert_eq!(member[SPELLED..], [5, 6, 1, 2, 3, 4], "as in a record");
        assert_eq!(key_of(&member[..SPELLED - 1]), None);
    }

    #[test]
    fn a_member_knows_its_age() {
        let made_ms = 1_790_000_000_000;
        let member = member(&LookupKey(3, 4), &number(made_ms as u64 * 1000));
        assert_eq!(age_ms(&member, made_ms + 5), 5);
    }
}
