//! Turns session ids and principals into the keys that engines see: keyed hashes under secrets that
//! never leave the store. A client that chooses ids or principals cannot choose where they are
//! stored, and no lookup tells how close a guess was (CVE-2019-16782).

use siphasher::sip128::SipHasher13;

use super::{
    aead::DataKey,
    keyring::Keyring,
    random::random,
    zeroize::{ZeroizeOnDrop, with_stack_wiped},
};
use crate::error::Result;

/// The length of the salt of a store that outlives its process.
pub(crate) const SALT_LEN: usize = 32;

/// The stack that BLAKE3 uses for an id, and some more.
const HASH_STACK_LEN: usize = 4 << 10;

/// The hash of an id or of a principal: 256 bits, or 128 and zeros.
#[derive(Clone, Copy)]
pub(crate) struct Digest(pub u128, pub u128);

impl Digest {
    pub(crate) fn from_bytes(bytes: &[u8; 32]) -> Digest {
        let half = |at: usize| u128::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
        Digest(half(0), half(16))
    }

    /// The first 128 bits, for engines that use no more.
    fn shortened(self) -> Digest {
        Digest(self.0, 0)
    }
}

/// The secrets that turn ids and principals into keys: one set for each store.
pub(crate) enum StoreKeys {
    /// SipHash-1-3 with 128 bits of output (Aumasson, Bernstein 2012): a pseudo-random function,
    /// and at 41 ns for an id the fastest one measured. It is enough where the secrets live and die
    /// with the process.
    SipHash { session: ZeroizeOnDrop<[u8; 16]>, principal: ZeroizeOnDrop<[u8; 16]> },
    /// Keyed BLAKE3: one step gives the lookup key and the session's secret, and neither reveals
    /// the other.
    Blake3 {
        session: ZeroizeOnDrop<[u8; 32]>,
        principal: ZeroizeOnDrop<[u8; 32]>,
        label: ZeroizeOnDrop<[u8; 32]>,
        /// Whether the engine uses only 128 bits of a digest.
        short: bool,
        /// The server's secrets, if the store seals.
        keyring: Option<Keyring>,
    },
}

impl StoreKeys {
    /// For a store that lives in this process only.
    pub(crate) fn for_process(seals: bool) -> Result<StoreKeys> {
        if seals {
            return Ok(StoreKeys::blake3(&*random::<SALT_LEN>()?, true, Some(Keyring::default())));
        }
        Ok(StoreKeys::SipHash { session: random()?, principal: random()? })
    }

    /// For a store that several processes open: they share its salt.
    pub(crate) fn for_shared_store(salt: &[u8; SALT_LEN], keyring: Option<Keyring>) -> StoreKeys {
        StoreKeys::blake3(salt, false, keyring)
    }

    fn blake3(salt: &[u8; SALT_LEN], short: bool, keyring: Option<Keyring>) -> StoreKeys {
        let derive = |context| ZeroizeOnDrop::new(blake3::derive_key(context, salt));
        StoreKeys::Blake3 {
            session: derive("libsss 2026 format 2: session id"),
            principal: derive("libsss 2026 format 2: principal"),
            label: derive("libsss 2026 format 2: label"),
            short,
            keyring,
        }
    }

    pub(crate) fn seals(&self) -> bool {
        matches!(self, StoreKeys::Blake3 { keyring: Some(_), .. })
    }

    /// Whether stored data never leaves this process, or is sealed.
    pub(crate) fn authenticates(&self) -> bool {
        !matches!(self, StoreKeys::Blake3 { keyring: None, .. })
    }

    /// The lookup key of an id; and the key of the session's data if the store seals.
    #[inline]
    pub(crate) fn session(&self, sid: &[u8]) -> (Digest, Option<DataKey<'_>>) {
        match self {
            StoreKeys::SipHash { session, .. } => (siphash(session, sid), None),
            StoreKeys::Blake3 { session, short, keyring, .. } => {
                with_stack_wiped::<HASH_STACK_LEN, _>(|| derive(session, *short, keyring.as_ref(), sid))
            }
        }
    }

    pub(crate) fn principal(&self, principal: &[u8]) -> Digest {
        match self {
            StoreKeys::SipHash { principal: secret, .. } => siphash(secret, principal),
            StoreKeys::Blake3 { principal: secret, short, .. } => {
                let digest = Digest::from_bytes(blake3::keyed_hash(secret, principal).as_bytes());
                if *short { digest.shortened() } else { digest }
            }
        }
    }

    /// The key of the labels of a principal's sessions, if the store seals. The principal's digest
    /// does not give it.
    pub(crate) fn label(&self, principal: &[u8]) -> Option<DataKey<'_>> {
        match self {
            StoreKeys::Blake3 { label, keyring: Some(keyring), .. } => {
                Some(with_stack_wiped::<HASH_STACK_LEN, _>(|| {
                    let secret = ZeroizeOnDrop::new(*blake3::keyed_hash(label, principal).as_bytes());
                    DataKey::new(&secret, keyring)
                }))
            }
            _ => None,
        }
    }
}

fn derive<'a>(
    secret: &[u8; 32],
    short: bool,
    keyring: Option<&'a Keyring>,
    sid: &[u8],
) -> (Digest, Option<DataKey<'a>>) {
    let mut hasher = blake3::Hasher::new_keyed(secret);
    let mut reader = hasher.update(sid).finalize_xof();
    // All 64 bytes in one read: each read computes a block.
    let mut output = ZeroizeOnDrop::new([0; 64]);
    reader.fill(&mut *output);
    let (halves, _) = output.as_chunks::<32>();
    let digest = Digest::from_bytes(&halves[0]);
    let digest = if short { digest.shortened() } else { digest };
    (digest, keyring.map(|keyring| DataKey::new(&halves[1], keyring)))
}

fn siphash(secret: &[u8; 16], bytes: &[u8]) -> Digest {
    Digest(SipHasher13::new_with_key(secret).hash(bytes).as_u128(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::aead::OVERHEAD;

    #[test]
    fn digest_of_principal_is_no_label_key() {
        let keys = StoreKeys::for_shared_store(&[1; SALT_LEN], Some(Keyring::default()));
        let sealed = |key: &DataKey| {
            let mut out = [0; 1 + OVERHEAD];
            key.seal([0; 12], b"", b"x", &mut out).unwrap();
            out
        };
        let (of_alice, of_bob) = (keys.label(b"alice").unwrap(), keys.label(b"bob").unwrap());
        let Digest(low, high) = keys.principal(b"alice");
        let mut digest = [0; 32];
        digest[..16].copy_from_slice(&low.to_le_bytes());
        digest[16..].copy_from_slice(&high.to_le_bytes());
        let keyring = Keyring::default();
        assert_ne!(sealed(&of_alice), sealed(&of_bob));
        assert_ne!(sealed(&of_alice), sealed(&DataKey::new(&digest, &keyring)));
        assert!(StoreKeys::for_shared_store(&[1; SALT_LEN], None).label(b"alice").is_none());
    }

    #[test]
    fn stores_hash_one_id_differently() {
        let id = [b'x'; 128];
        for seal in [false, true] {
            let digest = || StoreKeys::for_process(seal).unwrap().session(&id).0.0;
            assert_ne!(digest(), digest());
        }
        let digest = |salt| StoreKeys::for_shared_store(&[salt; SALT_LEN], None).session(&id).0.0;
        assert_ne!(digest(1), digest(2));
        assert_eq!(digest(1), digest(1));
    }
}
