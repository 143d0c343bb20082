//! The server's secrets, with which session keys are combined before they encrypt anything.

use super::zeroize::ZeroizeOnDrop;

/// The length of the id that tells the secrets of a keyring apart.
pub(crate) const SECRET_ID_LEN: usize = 4;

/// The server's secrets: the first one encrypts, all of them decrypt. Empty: the session id alone
/// gives the key.
#[derive(Default)]
pub(crate) struct Keyring(Vec<Secret>);

pub(super) struct Secret {
    /// Stored with everything that this secret encrypts. Derived from the secret, and never all
    /// zeros.
    pub id: [u8; SECRET_ID_LEN],
    pub key: ZeroizeOnDrop<[u8; 32]>,
}

impl Keyring {
    /// Adds a secret behind those that are there. False if it is there already.
    pub(crate) fn add(&mut self, secret: &[u8; 32]) -> bool {
        let mut id = [0; SECRET_ID_LEN];
        id.copy_from_slice(&blake3::derive_key("libsss 2026 format 2: number of a secret", secret)[..SECRET_ID_LEN]);
        // All zeros stand for "no secret".
        id[0] |= 1;
        if self.find(&id).is_some() {
            return false;
        }
        let key = blake3::derive_key("libsss 2026 format 2: secret", secret);
        self.0.push(Secret { id, key: ZeroizeOnDrop::new(key) });
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The secret that encrypts.
    pub(super) fn current(&self) -> Option<&Secret> {
        self.0.first()
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<&Secret> {
        self.0.iter().find(|secret| secret.id == id)
    }
}
