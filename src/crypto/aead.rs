//! Authenticated encryption of stored data (AES-256-GCM) under a key that only a session's id
//! gives, combined with the server's secret if there is one. The caller names the associated data,
//! to which the ciphertext is bound. docs/FORMAT.md describes the result byte by byte:
//!
//! ```text
//! sealed = format (1) | id of the server's secret (4) | nonce (12) | ciphertext | tag (16)
//! ```

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use super::{
    keyring::{Keyring, SECRET_ID_LEN, Secret},
    random::fill_random,
    zeroize::{ZeroizeOnDrop, with_stack_wiped},
};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u8 = 2;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const HEADER_LEN: usize = 1 + SECRET_ID_LEN + NONCE_LEN;

/// How much longer a sealed text is than the plain one.
pub(crate) const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The stack that the cipher uses, and some more: it works on 64 blocks at a time.
const CIPHER_STACK_LEN: usize = 8 << 10;

/// Random: a counter such as a session's version would be used twice when two writers race (NIST SP
/// 800-38D, 8.2.2).
pub(crate) type Nonce = [u8; NONCE_LEN];

pub(crate) fn random_nonce() -> Result<Nonce> {
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce)?;
    Ok(nonce)
}

/// The key of one session's data. It exists only while the id is presented, and on the heap: moving
/// it leaves no copy.
pub(crate) struct DataKey<'a> {
    session_secret: Box<ZeroizeOnDrop<[u8; 32]>>,
    keyring: &'a Keyring,
}

impl<'a> DataKey<'a> {
    /// The key of a session whose id gives `session_secret`.
    pub(crate) fn new(session_secret: &[u8; 32], keyring: &'a Keyring) -> DataKey<'a> {
        let mut data_key = DataKey { session_secret: Box::new(ZeroizeOnDrop::new([0; 32])), keyring };
        data_key.session_secret.copy_from_slice(session_secret);
        data_key
    }

    /// Encrypts `plain` into `out`, which is `OVERHEAD` longer, and binds it to `associated_data`.
    pub(crate) fn seal(&self, nonce: Nonce, associated_data: &[u8], plain: &[u8], out: &mut [u8]) -> Result<()> {
        with_stack_wiped::<CIPHER_STACK_LEN, _>(|| self.encrypt(nonce, associated_data, plain, out))
    }

    /// The text that `seal` was given; `CORRUPT` if it or the associated data was changed since.
    pub(crate) fn open(&self, associated_data: &[u8], sealed: &[u8]) -> Result<ZeroizeOnDrop<Vec<u8>>> {
        with_stack_wiped::<CIPHER_STACK_LEN, _>(|| self.decrypt(associated_data, sealed))
    }

    fn encrypt(&self, nonce: Nonce, associated_data: &[u8], plain: &[u8], out: &mut [u8]) -> Result<()> {
        let secret = self.keyring.current();
        let (header, body) = out.split_at_mut(HEADER_LEN);
        let (body, tag) = body.split_at_mut(plain.len());
        header[0] = FORMAT;
        header[1..1 + SECRET_ID_LEN].copy_from_slice(&secret.map_or([0; SECRET_ID_LEN], |secret| secret.id));
        header[1 + SECRET_ID_LEN..].copy_from_slice(&nonce);
        body.copy_from_slice(plain);
        let computed = self
            .cipher(secret)
            .encrypt_inout_detached(&nonce.into(), associated_data, body.into())
            .map_err(|_| Error::fixed(ErrorKind::TooLarge, "the payload is too large to be sealed"))?;
        tag.copy_from_slice(&computed);
        Ok(())
    }

    fn decrypt(&self, associated_data: &[u8], sealed: &[u8]) -> Result<ZeroizeOnDrop<Vec<u8>>> {
        let ([FORMAT, rest @ ..], Some(plain_len)) = (sealed, sealed.len().checked_sub(OVERHEAD)) else {
            return Err(Error::corrupt_record());
        };
        let (secret_id, rest) = rest.split_at(SECRET_ID_LEN);
        let (nonce, rest) = rest.split_at(NONCE_LEN);
        let (body, tag) = rest.split_at(plain_len);
        let (Ok(nonce), Ok(tag)) = (Nonce::try_from(nonce), <[u8; TAG_LEN]>::try_from(tag)) else {
            return Err(Error::corrupt_record());
        };
        let cipher = self.cipher_for(secret_id)?;
        let mut plain = ZeroizeOnDrop::new(Vec::new());
        plain.try_reserve_exact(plain_len).map_err(|_| Error::no_memory())?;
        plain.extend_from_slice(body);
        cipher
            .decrypt_inout_detached(&nonce.into(), associated_data, plain.as_mut_slice().into(), &tag.into())
            .map_err(|_| Error::corrupt_record())?;
        Ok(plain)
    }

    /// Seals this key itself under another one.
    pub(crate) fn wrap(&self, under: &DataKey, nonce: Nonce, associated_data: &[u8]) -> Result<WrappedKey> {
        let mut wrapped = [0; WRAPPED_KEY_LEN];
        under.seal(nonce, associated_data, self.session_secret.as_slice(), &mut wrapped)?;
        Ok(wrapped)
    }

    /// The key that `wrap` sealed under this one.
    pub(crate) fn unwrap_key(&self, associated_data: &[u8], wrapped: &WrappedKey) -> Result<DataKey<'a>> {
        let opened = self.open(associated_data, wrapped)?;
        let session_secret = opened.first_chunk().ok_or_else(Error::corrupt_record)?;
        Ok(DataKey::new(session_secret, self.keyring))
    }

    /// The cipher of a text that names this secret. A text without one is not opened where the
    /// store has secrets: anyone with write access to the store could have made it.
    fn cipher_for(&self, secret_id: &[u8]) -> Result<Aes256Gcm> {
        if self.keyring.is_empty() && secret_id == [0; SECRET_ID_LEN] {
            return Ok(self.cipher(None));
        }
        let secret = self.keyring.find(secret_id).ok_or_else(|| {
            Error::fixed(
                ErrorKind::Corrupt,
                "a record is damaged, or sealed with a secret that is not in the secret_file",
            )
        })?;
        Ok(self.cipher(Some(secret)))
    }

    fn cipher(&self, secret: Option<&Secret>) -> Aes256Gcm {
        let Some(secret) = secret else { return Aes256Gcm::new((&**self.session_secret).into()) };
        let key = ZeroizeOnDrop::new(*blake3::keyed_hash(&secret.key, self.session_secret.as_slice()).as_bytes());
        Aes256Gcm::new((&*key).into())
    }
}

/// A `DataKey` sealed under another one (key wrapping).
pub(crate) type WrappedKey = [u8; WRAPPED_KEY_LEN];
pub(crate) const WRAPPED_KEY_LEN: usize = OVERHEAD + 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(secrets: &[u8]) -> Keyring {
        let mut keyring = Keyring::default();
        for &byte in secrets {
            assert!(keyring.add(&[byte; 32]));
        }
        keyring
    }

    fn data_key(keyring: &Keyring, byte: u8) -> DataKey<'_> {
        DataKey::new(&[byte; 32], keyring)
    }

    fn sealed(keyring: &Keyring, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plain.len() + OVERHEAD];
        data_key(keyring, 1).seal(random_nonce().unwrap(), b"about", plain, &mut out).unwrap();
        out
    }

    fn is_corrupt<T>(result: Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    }

    #[test]
    fn sealed_text_opens() {
        for keyring in [keyring(&[]), keyring(&[1])] {
            for plain in [&b""[..], b"x", &[7; 1000]] {
                assert_eq!(*data_key(&keyring, 1).open(b"about", &sealed(&keyring, plain)).unwrap(), plain);
            }
        }
    }

    #[test]
    fn every_secret_opens_and_only_the_first_seals() {
        let opens = |secrets: &[u8], sealed: &[u8]| {
            let keyring = keyring(secrets);
            !is_corrupt(data_key(&keyring, 1).open(b"about", sealed))
        };
        let old = sealed(&keyring(&[1]), b"role=user");
        assert!(opens(&[1], &old) && opens(&[2, 1], &old) && opens(&[1, 2], &old));
        assert!(!opens(&[2], &old) && !opens(&[], &old));
        let new = sealed(&keyring(&[2, 1]), b"role=user");
        assert!(opens(&[2], &new) && !opens(&[1], &new));
        let without = sealed(&keyring(&[]), b"role=user");
        assert!(opens(&[], &without) && !opens(&[1], &without), "sealed without a secret");
        assert!(!keyring(&[1]).add(&[1; 32]));
    }

    #[test]
    fn any_edited_bit_is_corrupt() {
        let keyring = keyring(&[1, 2]);
        let good = sealed(&keyring, b"role=user");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_corrupt(data_key(&keyring, 1).open(b"about", &bad)), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(is_corrupt(data_key(&keyring, 1).open(b"about", &good[..len])), "cut to {len}");
        }
        assert!(is_corrupt(data_key(&keyring, 1).open(b"About", &good)));
        assert!(is_corrupt(data_key(&keyring, 2).open(b"about", &good)));
    }

    #[test]
    fn wrapped_key_opens_what_the_key_sealed() {
        let keyring = keyring(&[1]);
        let (old, new) = (data_key(&keyring, 2), data_key(&keyring, 1));
        let text = sealed(&keyring, b"role=user");
        let wrapped = new.wrap(&old, random_nonce().unwrap(), b"alias").unwrap();
        assert_eq!(*old.unwrap_key(b"alias", &wrapped).unwrap().open(b"about", &text).unwrap(), b"role=user");
        assert!(is_corrupt(old.unwrap_key(b"Alias", &wrapped)));
        assert!(is_corrupt(new.unwrap_key(b"alias", &wrapped)));
    }
}
