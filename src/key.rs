//! What an engine sees instead of an id: a keyed hash of it. The secret never leaves the store, so that nobody who
//! chooses ids or principals can choose where they land, and no lookup tells how close a guess was (CVE-2019-16782).

use std::fmt;

use siphasher::sip128::SipHasher13;
use zeroize::Zeroize;

use crate::{
    error::Result,
    seal::{DataKey, Ring},
    sid::{SID_LEN, fill_random},
    wiped::Wiped,
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

/// A principal as the engines see it: its keyed hash, as wide as a [`Key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PrincipalKey(pub u128, pub u128);

impl PrincipalKey {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        Key(self.0, self.1).bytes()
    }
}

impl From<[u8; 32]> for PrincipalKey {
    fn from(bytes: [u8; 32]) -> PrincipalKey {
        let key = Key::from(&Ref(bytes));
        PrincipalKey(key.0, key.1)
    }
}

/// The length of the salt of a store that outlives its process.
pub(crate) const SALT: usize = 32;

/// The secrets that turn ids and principals into keys: one set per store.
pub(crate) enum Keys {
    /// SipHash-1-3 with 128 bits of output (Aumasson, Bernstein 2012): a pseudo-random function, and at 41 ns for an id
    /// the fastest one measured. It is enough where the secrets live and die with the process.
    Hashed { session: Wiped<[u8; 16]>, principal: Wiped<[u8; 16]> },
    /// Keyed BLAKE3: one step gives the lookup key and the id's own secret, and neither tells the other.
    Derived {
        session: Wiped<[u8; 32]>,
        principal: Wiped<[u8; 32]>,
        /// Whether the engine uses only 128 bits of a key.
        short: bool,
        /// The server's secrets, if the store seals.
        ring: Option<Ring>,
    },
}

impl Keys {
    /// For a store that lives in this process only.
    pub(crate) fn of_process(seals: bool) -> Result<Keys> {
        if seals {
            return Ok(Keys::derived(&*random::<SALT>()?, true, Some(Ring::default())));
        }
        Ok(Keys::Hashed { session: random()?, principal: random()? })
    }

    /// For a store that others open as well: they share its salt.
    pub(crate) fn of_store(salt: &[u8; SALT], ring: Option<Ring>) -> Keys {
        Keys::derived(salt, false, ring)
    }

    fn derived(salt: &[u8; SALT], short: bool, ring: Option<Ring>) -> Keys {
        let derive = |context| Wiped::new(blake3::derive_key(context, salt));
        Keys::Derived {
            session: derive("libsss 2026 format 1: session id"),
            principal: derive("libsss 2026 format 1: principal"),
            short,
            ring,
        }
    }

    pub(crate) fn seals(&self) -> bool {
        matches!(self, Keys::Derived { ring: Some(_), .. })
    }

    /// Whether what is stored never leaves this process, or is sealed.
    pub(crate) fn authenticate(&self) -> bool {
        !matches!(self, Keys::Derived { ring: None, .. })
    }

    /// The keys of whatever bytes a client sent; the data key only if the store seals. A malformed id costs the same
    /// hash and the same lookup as a well-formed one, and cannot be found because only minted ids were ever stored.
    #[inline]
    pub(crate) fn session(&self, sid: &[u8]) -> (Key, Option<DataKey<'_>>) {
        const MALFORMED: &[u8] = &[0; SID_LEN];
        let sid = if sid.len() == SID_LEN { sid } else { MALFORMED };
        match self {
            Keys::Hashed { session, .. } => (Key(hash(session, sid), 0), None),
            Keys::Derived { session, short, ring, .. } => derive(session, *short, ring.as_ref(), sid),
        }
    }

    pub(crate) fn principal(&self, principal: &[u8]) -> PrincipalKey {
        match self {
            Keys::Hashed { principal: secret, .. } => PrincipalKey(hash(secret, principal), 0),
            Keys::Derived { principal: secret, short, .. } => {
                let key = PrincipalKey::from(*blake3::keyed_hash(secret, principal).as_bytes());
                if *short { PrincipalKey(key.0, 0) } else { key }
            }
        }
    }
}

pub(crate) fn random<const N: usize>() -> Result<Wiped<[u8; N]>> {
    let mut bytes = Wiped::new([0; N]);
    fill_random(bytes.as_mut_slice())?;
    Ok(bytes)
}

/// The key of an id, and if the store seals what its payload is sealed under.
#[inline(never)]
fn derive<'a>(secret: &[u8; 32], short: bool, ring: Option<&'a Ring>, sid: &[u8]) -> (Key, Option<DataKey<'a>>) {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    let mut reader = hasher.update(sid).finalize_xof();
    // At once: each read computes a block anew.
    let mut output = Wiped::new([0; 64]);
    reader.fill(&mut *output);
    // What is left of the id is in the buffers of the one chunk. (zeroize would go over the whole stack of the
    // tree, which takes longer than the hash.)
    hasher.reset();
    std::hint::black_box(&mut hasher);
    reader.zeroize();
    let (lookup, of_id) = output.split_at(32);
    let data_key = ring.map(|ring| {
        let mut data_key = DataKey::blank(ring);
        data_key.bytes_mut().copy_from_slice(of_id);
        data_key
    });
    let half = |at: usize| u128::from_le_bytes(std::array::from_fn(|i| lookup[at + i]));
    (Key(half(0), if short { 0 } else { half(16) }), data_key)
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
            let key = || Keys::of_process(seal).unwrap().session(&id).0;
            assert_ne!(key(), key());
        }
        let key = |salt| Keys::of_store(&[salt; SALT], None).session(&id).0;
        assert_ne!(key(1), key(2));
        assert_eq!(key(1), key(1));
    }
}
