//! How the keys are called, and how a session is noted in its principal's list. What stands in braces says where in a
//! Cluster a key is: all that a script touches is there together.

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::{
    error::Result,
    format::Private,
    key::{Key, PrincipalKey, Ref},
    seal::corrupt,
};

/// The length of a key in a name.
const SPELLED: usize = 43;
/// The number of a write is as long as the fields of a record that are its engine's own; in microseconds nine years.
const NUMBER: usize = 6;
const NUMBER_BITS: u32 = 48;

pub(super) struct Names<'a> {
    pub prefix: &'a str,
}

impl Names<'_> {
    /// The record of a session.
    pub(super) fn session(&self, key: &Key) -> Vec<u8> {
        self.name("s", &key.bytes())
    }

    /// Where an old id leads to.
    pub(super) fn alias(&self, key: &Key) -> Vec<u8> {
        self.name("a", &key.bytes())
    }

    /// The list of a principal's sessions.
    pub(super) fn principal(&self, principal: PrincipalKey) -> Vec<u8> {
        self.name("p", &principal.bytes())
    }

    pub(super) fn all_sessions(&self) -> Vec<u8> {
        format!("{}s:{{*}}", self.prefix).into_bytes()
    }

    pub(super) fn all_principals(&self) -> Vec<u8> {
        format!("{}p:{{*}}", self.prefix).into_bytes()
    }

    /// The key in a name that one of these has given.
    pub(super) fn key_in(&self, name: &[u8]) -> Option<Key> {
        let spelled = name.get(self.prefix.len() + "s:{".len()..)?.strip_suffix(b"}")?;
        let mut bytes = [0; 32];
        let decoded = Base64UrlUnpadded::decode(spelled, &mut bytes).ok()?;
        Some(Key::from(&Ref(decoded.try_into().ok()?)))
    }

    fn name(&self, what: &str, key: &[u8; 32]) -> Vec<u8> {
        let mut spelled = [0; SPELLED];
        // Fits: 32 bytes are 43 characters.
        let spelled = Base64UrlUnpadded::encode(key, &mut spelled).unwrap_or_default();
        format!("{}{what}:{{{spelled}}}", self.prefix).into_bytes()
    }
}

/// A number that tells the order of writes, from a time in microseconds.
pub(super) fn number(us: u64) -> Private {
    let us = us & ((1 << NUMBER_BITS) - 1);
    Private { cell: us as u32, generation: (us >> 32) as u16, armed: 0 }
}

/// How long ago, in milliseconds, a number was made, at this time in microseconds.
pub(super) fn age_ms(number: &Private, us: u64) -> u64 {
    let made = u64::from(number.generation) << 32 | u64::from(number.cell);
    (us.wrapping_sub(made) & ((1 << NUMBER_BITS) - 1)) / 1000
}

/// A session in its principal's list: its key, and the number of the write by which it came there.
pub(super) fn member(key: &Key, private: &Private) -> Vec<u8> {
    let mut member = key.bytes().to_vec();
    member.extend_from_slice(&private.cell.to_le_bytes());
    member.extend_from_slice(&private.generation.to_le_bytes());
    member
}

pub(super) fn parse_member(member: &[u8]) -> Result<(Key, Private)> {
    let (key, number) = member.split_first_chunk::<32>().ok_or_else(corrupt)?;
    let number: &[u8; NUMBER] = number.try_into().map_err(|_| corrupt())?;
    let [a, b, c, d, e, f] = *number;
    let private = Private { cell: u32::from_le_bytes([a, b, c, d]), generation: u16::from_le_bytes([e, f]), armed: 0 };
    Ok((Key::from(&Ref(*key)), private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_key_back() {
        let (names, key) = (Names { prefix: "app:1:" }, Key(1 << 100, 7));
        let name = names.session(&key);
        assert_eq!(names.key_in(&name), Some(key));
        assert_eq!(names.key_in(b"app:1:s:{AAAA}"), None);
        assert_eq!(names.key_in(b"app"), None);
        let tag = |name: &[u8]| name[name.iter().position(|&c| c == b'{').unwrap()..].to_vec();
        assert_eq!(tag(&name), tag(&names.alias(&key)), "a session and its alias are together");
    }

    #[test]
    fn a_member_comes_back_and_knows_its_age() {
        let private = number(0x1234_5678_9ABC_DEF0);
        let (key, again) = parse_member(&member(&Key(3, 4), &private)).unwrap();
        assert_eq!((key, again), (Key(3, 4), private));
        assert_eq!(age_ms(&private, 0x1234_5678_9ABC_DEF0 + 5000), 5);
        assert_eq!(age_ms(&number(u64::MAX), 4_999), 5, "also when it has gone round");
        assert!(parse_member(&[0; 37]).is_err() && parse_member(&[0; 39]).is_err());
    }
}
