//! What an engine sees instead of an id: a keyed hash of it. The secret never leaves the store, so that nobody who
//! chooses ids or principals can choose where they land, and no lookup tells how close a guess was (CVE-2019-16782).

use std::fmt;

use siphasher::sip128::SipHasher13;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    error::Result,
    seal::DataKey,
    sid::{SID_LEN, fill_random},
};

/// The public reference of a session: names it in a list of devices or in a log, but opens nothing.
///
/// 32 opaque bytes, the same for as long as the session keeps its id, and only meaningful to the store that gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(pub [u8; 32]);

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ref(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The key of a session in its engine: also its public reference. Engines of one process use 128 bits of it, the
/// rest is zero; shared engines use all 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub u128, pub u128);

impl Key {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.1.to_le_bytes());
        bytes
    }
}

impl From<Key> for Ref {
    fn from(key: Key) -> Ref {
        Ref(key.bytes())
    }
}

impl From<&Ref> for Key {
    fn from(reference: &Ref) -> Key {
        let half = |i: usize| u128::from_le_bytes(std::array::from_fn(|k| reference.0[i + k]));
        Key(half(0), half(16))
    }
}

/// A principal as the engines see it: its keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PrincipalKey(pub u128);

/// The secrets that turn ids and principals into keys: one of each per store.
pub(crate) struct Keys {
    session: SessionSecret,
    principal: Zeroizing<[u8; 16]>,
}

enum SessionSecret {
    /// SipHash-1-3 with 128 bits of output (Aumasson, Bernstein 2012): a pseudo-random function, and at 41 ns for an id
    /// the fastest one measured. It is enough where the secret lives and dies with the process.
    Hashed(Zeroizing<[u8; 16]>),
    /// Keyed BLAKE3: one step gives the lookup key and the data key, and neither tells the other.
    Sealed(Zeroizing<[u8; 32]>),
}

impl Keys {
    pub(crate) fn random(seal: bool) -> Result<Keys> {
        let session = match seal {
            false => SessionSecret::Hashed(random()?),
            true => SessionSecret::Sealed(random()?),
        };
        Ok(Keys { session, principal: random()? })
    }

    pub(crate) fn seals(&self) -> bool {
        matches!(self.session, SessionSecret::Sealed(_))
    }

    /// The keys of whatever bytes a client sent; the data key only if the store seals. A malformed id costs the same
    /// hash and the same lookup as a well-formed one, and cannot be found because only minted ids were ever stored.
    pub(crate) fn session(&self, sid: &[u8]) -> (Key, Option<DataKey>) {
        const MALFORMED: &[u8] = &[0; SID_LEN];
        let sid = if sid.len() == SID_LEN { sid } else { MALFORMED };
        match &self.session {
            SessionSecret::Hashed(secret) => (Key(hash(secret, sid), 0), None),
            SessionSecret::Sealed(secret) => {
                let mut hasher = blake3::Hasher::new_keyed(secret);
                let mut output = hasher.update(sid).finalize_xof();
                let mut lookup = [0; 16];
                let mut data_key = DataKey::blank();
                output.fill(&mut lookup);
                output.fill(data_key.bytes_mut());
                hasher.zeroize();
                output.zeroize();
                (Key(u128::from_le_bytes(lookup), 0), Some(data_key))
            }
        }
    }

    pub(crate) fn principal(&self, principal: &[u8]) -> PrincipalKey {
        PrincipalKey(hash(&self.principal, principal))
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    fill_random(bytes.as_mut_slice())?;
    Ok(bytes)
}

fn hash(secret: &[u8; 16], bytes: &[u8]) -> u128 {
    SipHasher13::new_with_key(secret).hash(bytes).as_u128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_and_its_key_are_the_same() {
        let key = Key(0x0102_0304, 7);
        assert_eq!(Key::from(&Ref::from(key)), key);
    }

    #[test]
    fn two_stores_give_one_id_two_keys() {
        let id = [b'x'; SID_LEN];
        for seal in [false, true] {
            let key = || Keys::random(seal).unwrap().session(&id).0;
            assert_ne!(key(), key());
        }
    }
}
