//! Sealing: a payload is encrypted under a key that only the session's id gives, bound to everything about the session
//! that must not be edited. A copy of the store yields neither ids nor payloads; a record that was edited, moved or
//! planted is `CORRUPT` and never data.
//!
//! ```text
//! sealed = format (1) | nonce (12) | AES-256-GCM ciphertext | tag (16)
//! associated data = format | lookup key | creation | own timeouts | principal | version
//! ```
//! The last use is outside, because a get writes it; it is bounded by the absolute deadline, which is inside.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use zeroize::Zeroizing;

use crate::{
    error::{Error, ErrorKind, Result},
    key::Key,
    record::Head,
    sid::fill_random,
};

const FORMAT: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;
const AAD: usize = 1 + 32 + 3 * 8 + 17 + 8;

/// How much longer a sealed payload is.
pub(crate) const OVERHEAD: usize = 1 + NONCE + TAG;

/// The key of one session's payload. It exists only while the id is presented, and on the heap: moving it leaves no copy.
pub(crate) struct DataKey(Box<Zeroizing<[u8; 32]>>);

impl DataKey {
    /// Zeros, to be filled.
    pub(crate) fn blank() -> DataKey {
        DataKey(Box::new(Zeroizing::new([0; 32])))
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.0
    }
}

/// Random: a counter such as the version would be used twice when two writers race (NIST SP 800-38D, 8.2.2).
pub(crate) type Nonce = [u8; NONCE];

/// What opens a renewed session to its old id: the new data key, sealed under the old one.
pub(crate) type Token = [u8; OVERHEAD + 32];

pub(crate) fn nonce() -> Result<Nonce> {
    let mut nonce = [0; NONCE];
    fill_random(&mut nonce)?;
    Ok(nonce)
}

/// Seals `plain` into `out`, which is `OVERHEAD` longer.
pub(crate) fn seal(under: &DataKey, nonce: Nonce, key: &Key, head: &Head, plain: &[u8], out: &mut [u8]) -> Result<()> {
    encrypt(under, nonce, &associated_data(key, head), plain, out)
}

/// The payload that `seal` was given, if nothing was changed since.
pub(crate) fn open(under: &DataKey, key: &Key, head: &Head, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    decrypt(under, &associated_data(key, head), sealed)
}

/// Seals the data key of a renewed session for its old id.
pub(crate) fn token(old: &DataKey, new: &DataKey, old_key: &Key) -> Result<Token> {
    let mut token = [0; OVERHEAD + 32];
    encrypt(old, nonce()?, &old_key.bytes(), new.0.as_slice(), &mut token)?;
    Ok(token)
}

/// The data key that a token holds.
pub(crate) fn open_token(old: &DataKey, old_key: &Key, token: &Token) -> Result<DataKey> {
    let opened = decrypt(old, &old_key.bytes(), token)?;
    let mut key = DataKey::blank();
    key.0.copy_from_slice(opened.get(..32).ok_or_else(corrupt)?);
    Ok(key)
}

fn associated_data(key: &Key, head: &Head) -> [u8; AAD] {
    let mut data = [0; AAD];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        data[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&[FORMAT]);
    put(&key.bytes());
    for time in [head.created, head.own.absolute, head.own.idle] {
        put(&time.to_le_bytes());
    }
    put(&[head.principal.is_some().into()]);
    put(&head.principal.map_or(0, |principal| principal.0).to_le_bytes());
    put(&head.version.to_le_bytes());
    debug_assert_eq!(at, AAD);
    data
}

fn encrypt(under: &DataKey, nonce: Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<()> {
    let (head, body) = out.split_at_mut(1 + NONCE);
    let (body, tag) = body.split_at_mut(plain.len());
    head[0] = FORMAT;
    head[1..].copy_from_slice(&nonce);
    body.copy_from_slice(plain);
    let computed = cipher(under)
        .encrypt_inout_detached(&nonce.into(), aad, body.into())
        .map_err(|_| Error::fixed(ErrorKind::TooLarge, "the payload is too large to be sealed"))?;
    tag.copy_from_slice(&computed);
    Ok(())
}

fn decrypt(under: &DataKey, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let ([FORMAT, rest @ ..], Some(plain_len)) = (sealed, sealed.len().checked_sub(OVERHEAD)) else {
        return Err(corrupt());
    };
    let (nonce, rest) = rest.split_at(NONCE);
    let (body, tag) = rest.split_at(plain_len);
    let (Ok(nonce), Ok(tag)) = (Nonce::try_from(nonce), <[u8; TAG]>::try_from(tag)) else {
        return Err(corrupt());
    };
    let mut plain = Zeroizing::new(Vec::new());
    plain.try_reserve_exact(plain_len).map_err(|_| Error::no_memory())?;
    plain.extend_from_slice(body);
    cipher(under)
        .decrypt_inout_detached(&nonce.into(), aad, plain.as_mut_slice().into(), &tag.into())
        .map_err(|_| corrupt())?;
    Ok(plain)
}

fn cipher(under: &DataKey) -> Aes256Gcm {
    Aes256Gcm::new((&**under.0).into())
}

fn corrupt() -> Error {
    Error::fixed(ErrorKind::Corrupt, "a sealed record was damaged or edited")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::PrincipalKey, policy::Timeouts};

    fn data_key(byte: u8) -> DataKey {
        DataKey(Box::new(Zeroizing::new([byte; 32])))
    }

    fn head() -> Head {
        Head {
            version: 3,
            created: 1000,
            last_seen: 2000,
            own: Timeouts { absolute: 0, idle: 60_000 },
            principal: Some(PrincipalKey(7)),
        }
    }

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plain.len() + OVERHEAD];
        seal(&data_key(1), nonce().unwrap(), &Key(1, 2), &head(), plain, &mut out).unwrap();
        out
    }

    fn is_corrupt<T>(result: Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    }

    #[test]
    fn what_was_sealed_opens_and_the_last_use_does_not_matter() {
        for plain in [&b""[..], b"x", &[7; 1000]] {
            let later = Head { last_seen: 9999, ..head() };
            assert_eq!(*open(&data_key(1), &Key(1, 2), &later, &sealed(plain)).unwrap(), plain);
        }
    }

    #[test]
    fn every_single_bit_edit_is_corrupt() {
        let good = sealed(b"role=user");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_corrupt(open(&data_key(1), &Key(1, 2), &head(), &bad)), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(is_corrupt(open(&data_key(1), &Key(1, 2), &head(), &good[..len])), "cut to {len}");
        }
    }

    #[test]
    fn a_record_that_was_moved_or_whose_head_was_edited_is_corrupt() {
        let good = sealed(b"role=user");
        let edits: [Head; 6] = [
            Head { version: 4, ..head() },
            Head { created: 1001, ..head() },
            Head { own: Timeouts { absolute: 1, idle: 60_000 }, ..head() },
            Head { own: Timeouts { absolute: 0, idle: 60_001 }, ..head() },
            Head { principal: Some(PrincipalKey(8)), ..head() },
            Head { principal: None, ..head() },
        ];
        for edited in edits {
            assert!(is_corrupt(open(&data_key(1), &Key(1, 2), &edited, &good)), "{edited:?}");
        }
        assert!(is_corrupt(open(&data_key(1), &Key(2, 2), &head(), &good)));
        assert!(is_corrupt(open(&data_key(1), &Key(1, 3), &head(), &good)));
        assert!(is_corrupt(open(&data_key(2), &Key(1, 2), &head(), &good)));
    }

    #[test]
    fn a_token_opens_for_the_old_id_only() {
        let token = token(&data_key(1), &data_key(2), &Key(1, 2)).unwrap();
        assert_eq!(**open_token(&data_key(1), &Key(1, 2), &token).unwrap().0, [2; 32]);
        assert!(is_corrupt(open_token(&data_key(3), &Key(1, 2), &token)));
        assert!(is_corrupt(open_token(&data_key(1), &Key(1, 1), &token)));
    }
}
