//! Sealing: a payload is encrypted under a key that only the session's id gives, together with the server's secret if
//! there is one, bound to everything about the session that must not be edited. A copy of the store yields neither ids nor
//! payloads; a record that was edited, moved or planted is `CORRUPT` and never data. docs/FORMAT.md has it byte by byte.
//!
//! ```text
//! sealed = format (1) | number of the server's secret (4) | nonce (12) | AES-256-GCM ciphertext | tag (16)
//! associated data = format | what it is (1) | lookup key | creation | own timeouts | principal | version
//! ```
//! The last use is outside, because a get writes it; it is bounded by the absolute deadline, which is inside.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};

use crate::{
    error::{Error, ErrorKind, Result},
    key::Key,
    record::{Alias, Head},
    sid::fill_random,
    wiped::Wiped,
};

const FORMAT: u8 = 1;
const NUMBER: usize = 4;
const NONCE: usize = 12;
const TAG: usize = 16;
const HEAD: usize = 1 + NUMBER + NONCE;

/// What is sealed, so that nothing can ever be taken for something else under the same key.
const PAYLOAD: u8 = 1;
const DATA_KEY: u8 = 2;
const PAYLOAD_AAD: usize = 2 + 32 + 3 * 8 + 33 + 8;
const TOKEN_AAD: usize = 2 + 32 + 32 + 8;

/// How much longer a sealed payload is.
pub(crate) const OVERHEAD: usize = HEAD + TAG;

/// The server's secrets: the first one seals, all of them open. None: the id alone gives the key.
#[derive(Default)]
pub(crate) struct Ring(Vec<Secret>);

struct Secret {
    number: [u8; NUMBER],
    key: Wiped<[u8; 32]>,
}

impl Ring {
    /// A secret that opens, and that seals if it is the first. False, and nothing done, if it is there already.
    pub(crate) fn add(&mut self, secret: &[u8; 32]) -> bool {
        let mut number = [0; NUMBER];
        number.copy_from_slice(&blake3::derive_key("libsss 2026 format 1: number of a secret", secret)[..NUMBER]);
        // 0 stands for "no secret".
        number[0] |= 1;
        let is_new = self.0.iter().all(|other| other.number != number);
        if is_new {
            let key = blake3::derive_key("libsss 2026 format 1: secret", secret);
            self.0.push(Secret { number, key: Wiped::new(key) });
        }
        is_new
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The key of one session's payload. It exists only while the id is presented, and on the heap: moving it leaves no copy.
pub(crate) struct DataKey<'a> {
    of_id: Box<Wiped<[u8; 32]>>,
    ring: &'a Ring,
}

impl<'a> DataKey<'a> {
    /// Zeros, to be filled.
    pub(crate) fn blank(ring: &'a Ring) -> DataKey<'a> {
        DataKey { of_id: Box::new(Wiped::new([0; 32])), ring }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.of_id
    }

    /// The cipher for new records, and the number of the secret in it.
    fn sealing(&self) -> ([u8; NUMBER], Aes256Gcm) {
        match self.ring.0.first() {
            None => ([0; NUMBER], Aes256Gcm::new((&**self.of_id).into())),
            Some(secret) => (secret.number, self.with(secret)),
        }
    }

    /// The cipher of a record that names this secret. A record without one is not opened where there are some: whoever can
    /// write the store could have made it.
    fn opening(&self, number: &[u8]) -> Result<Aes256Gcm> {
        if self.ring.is_empty() && number == [0; NUMBER] {
            return Ok(Aes256Gcm::new((&**self.of_id).into()));
        }
        let secret = self.ring.0.iter().find(|secret| secret.number == number);
        secret.map(|secret| self.with(secret)).ok_or_else(|| {
            Error::fixed(
                ErrorKind::Corrupt,
                "a record is sealed with a secret that is not in the secret_file, or damaged",
            )
        })
    }

    fn with(&self, secret: &Secret) -> Aes256Gcm {
        let key = Wiped::new(*blake3::keyed_hash(&secret.key, self.of_id.as_slice()).as_bytes());
        Aes256Gcm::new((&*key).into())
    }
}

/// Random: a counter such as the version would be used twice when two writers race (NIST SP 800-38D, 8.2.2).
pub(crate) type Nonce = [u8; NONCE];

/// What opens a renewed session to its old id: the new id's key, sealed under the old one's.
pub(crate) type Token = [u8; TOKEN];
pub(crate) const TOKEN: usize = OVERHEAD + 32;

pub(crate) fn nonce() -> Result<Nonce> {
    let mut nonce = [0; NONCE];
    fill_random(&mut nonce)?;
    Ok(nonce)
}

/// Seals `plain` into `out`, which is `OVERHEAD` longer.
pub(crate) fn seal(under: &DataKey, nonce: Nonce, key: &Key, head: &Head, plain: &[u8], out: &mut [u8]) -> Result<()> {
    encrypt(under, nonce, &record_data(key, head), plain, out)
}

/// The payload that `seal` was given, if nothing was changed since.
pub(crate) fn open(under: &DataKey, key: &Key, head: &Head, sealed: &[u8]) -> Result<Wiped<Vec<u8>>> {
    decrypt(under, &record_data(key, head), sealed)
}

/// Seals the data key of a renewed session for its old id, which reads it until a moment.
pub(crate) fn token(from: &DataKey, to: &DataKey, nonce: Nonce, old: &Key, new: &Key, until: i64) -> Result<Token> {
    let mut token = [0; TOKEN];
    encrypt(from, nonce, &token_data(old, new, until), to.of_id.as_slice(), &mut token)?;
    Ok(token)
}

/// The data key that an alias leads to.
pub(crate) fn open_token<'a>(from: &DataKey<'a>, alias: &Alias) -> Result<DataKey<'a>> {
    let token = alias.token.as_ref().ok_or_else(corrupt)?;
    let opened = decrypt(from, &token_data(&alias.key, &alias.target, alias.until), token.as_slice())?;
    let mut key = DataKey::blank(from.ring);
    key.bytes_mut().copy_from_slice(opened.get(..32).ok_or_else(corrupt)?);
    Ok(key)
}

fn record_data(key: &Key, head: &Head) -> [u8; PAYLOAD_AAD] {
    joined([
        &[FORMAT, PAYLOAD],
        &key.bytes(),
        &head.created.to_le_bytes(),
        &head.own.absolute.to_le_bytes(),
        &head.own.idle.to_le_bytes(),
        &[head.principal.is_some().into()],
        &head.principal.map_or([0; 32], |principal| principal.bytes()),
        &head.version.to_le_bytes(),
    ])
}

fn token_data(old: &Key, new: &Key, until: i64) -> [u8; TOKEN_AAD] {
    joined([&[FORMAT, DATA_KEY], &old.bytes(), &new.bytes(), &until.to_le_bytes()])
}

fn joined<const PARTS: usize, const N: usize>(parts: [&[u8]; PARTS]) -> [u8; N] {
    let mut data = [0; N];
    let mut at = 0;
    for part in parts {
        data[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N);
    data
}

fn encrypt(under: &DataKey, nonce: Nonce, aad: &[u8], plain: &[u8], out: &mut [u8]) -> Result<()> {
    let (number, cipher) = under.sealing();
    let (head, body) = out.split_at_mut(HEAD);
    let (body, tag) = body.split_at_mut(plain.len());
    head[0] = FORMAT;
    head[1..1 + NUMBER].copy_from_slice(&number);
    head[1 + NUMBER..].copy_from_slice(&nonce);
    body.copy_from_slice(plain);
    let computed = cipher
        .encrypt_inout_detached(&nonce.into(), aad, body.into())
        .map_err(|_| Error::fixed(ErrorKind::TooLarge, "the payload is too large to be sealed"))?;
    tag.copy_from_slice(&computed);
    Ok(())
}

fn decrypt(under: &DataKey, aad: &[u8], sealed: &[u8]) -> Result<Wiped<Vec<u8>>> {
    let ([FORMAT, rest @ ..], Some(plain_len)) = (sealed, sealed.len().checked_sub(OVERHEAD)) else {
        return Err(corrupt());
    };
    let (number, rest) = rest.split_at(NUMBER);
    let (nonce, rest) = rest.split_at(NONCE);
    let (body, tag) = rest.split_at(plain_len);
    let (Ok(nonce), Ok(tag)) = (Nonce::try_from(nonce), <[u8; TAG]>::try_from(tag)) else {
        return Err(corrupt());
    };
    let cipher = under.opening(number)?;
    let mut plain = Wiped::new(Vec::new());
    plain.try_reserve_exact(plain_len).map_err(|_| Error::no_memory())?;
    plain.extend_from_slice(body);
    cipher
        .decrypt_inout_detached(&nonce.into(), aad, plain.as_mut_slice().into(), &tag.into())
        .map_err(|_| corrupt())?;
    Ok(plain)
}

pub(crate) fn corrupt() -> Error {
    Error::fixed(ErrorKind::Corrupt, "a stored record was damaged or edited")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{key::PrincipalKey, policy::Timeouts};

    fn ring(secrets: &[u8]) -> Ring {
        let mut ring = Ring::default();
        secrets.iter().for_each(|&byte| assert!(ring.add(&[byte; 32])));
        ring
    }

    fn data_key(ring: &Ring, byte: u8) -> DataKey<'_> {
        DataKey { of_id: Box::new(Wiped::new([byte; 32])), ring }
    }

    fn head() -> Head {
        Head {
            version: 3,
            created: 1000,
            last_seen: 2000,
            own: Timeouts { absolute: 0, idle: 60_000 },
            principal: Some(PrincipalKey(7, 0)),
        }
    }

    fn sealed(ring: &Ring, plain: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plain.len() + OVERHEAD];
        seal(&data_key(ring, 1), nonce().unwrap(), &Key(1, 2), &head(), plain, &mut out).unwrap();
        out
    }

    fn is_corrupt<T>(result: Result<T>) -> bool {
        result.is_err_and(|error| error.kind() == ErrorKind::Corrupt)
    }

    #[test]
    fn what_was_sealed_opens_and_the_last_use_does_not_matter() {
        for ring in [ring(&[]), ring(&[1])] {
            for plain in [&b""[..], b"x", &[7; 1000]] {
                let later = Head { last_seen: 9999, ..head() };
                assert_eq!(*open(&data_key(&ring, 1), &Key(1, 2), &later, &sealed(&ring, plain)).unwrap(), plain);
            }
        }
    }

    #[test]
    fn the_first_secret_seals_and_all_of_them_open() {
        let opens = |secrets: &[u8], sealed: &[u8]| {
            let ring = ring(secrets);
            !is_corrupt(open(&data_key(&ring, 1), &Key(1, 2), &head(), sealed))
        };
        let old = sealed(&ring(&[1]), b"role=user");
        assert!(opens(&[1], &old) && opens(&[2, 1], &old) && opens(&[1, 2], &old));
        assert!(!opens(&[2], &old) && !opens(&[], &old));
        let new = sealed(&ring(&[2, 1]), b"role=user");
        assert!(opens(&[2], &new) && !opens(&[1], &new));
        let without = sealed(&ring(&[]), b"role=user");
        assert!(opens(&[], &without) && !opens(&[1], &without), "one that was made without a secret");
        assert!(!ring(&[1]).add(&[1; 32]));
    }

    #[test]
    fn every_single_bit_edit_is_corrupt() {
        let ring = ring(&[1, 2]);
        let good = sealed(&ring, b"role=user");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(is_corrupt(open(&data_key(&ring, 1), &Key(1, 2), &head(), &bad)), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(is_corrupt(open(&data_key(&ring, 1), &Key(1, 2), &head(), &good[..len])), "cut to {len}");
        }
    }

    #[test]
    fn a_record_that_was_moved_or_whose_head_was_edited_is_corrupt() {
        let ring = ring(&[]);
        let good = sealed(&ring, b"role=user");
        let edits: [Head; 7] = [
            Head { version: 4, ..head() },
            Head { created: 1001, ..head() },
            Head { own: Timeouts { absolute: 1, idle: 60_000 }, ..head() },
            Head { own: Timeouts { absolute: 0, idle: 60_001 }, ..head() },
            Head { principal: Some(PrincipalKey(8, 0)), ..head() },
            Head { principal: Some(PrincipalKey(7, 1)), ..head() },
            Head { principal: None, ..head() },
        ];
        for edited in edits {
            assert!(is_corrupt(open(&data_key(&ring, 1), &Key(1, 2), &edited, &good)), "{edited:?}");
        }
        assert!(is_corrupt(open(&data_key(&ring, 1), &Key(2, 2), &head(), &good)));
        assert!(is_corrupt(open(&data_key(&ring, 1), &Key(1, 3), &head(), &good)));
        assert!(is_corrupt(open(&data_key(&ring, 2), &Key(1, 2), &head(), &good)));
    }

    #[test]
    fn a_token_opens_for_the_old_id_only_and_until_its_end_only() {
        let ring = ring(&[1]);
        let (old, new, nonce) = (data_key(&ring, 1), data_key(&ring, 2), nonce().unwrap());
        let token = token(&old, &new, nonce, &Key(1, 2), &Key(3, 4), 99).unwrap();
        let alias = Alias { key: Key(1, 2), target: Key(3, 4), until: 99, token: Some(Box::new(token)) };
        assert_eq!(**open_token(&old, &alias).unwrap().of_id, [2; 32]);
        assert!(is_corrupt(open_token(&data_key(&ring, 3), &alias)));
        assert!(is_corrupt(open_token(&old, &Alias { key: Key(1, 1), ..alias.clone() })));
        assert!(is_corrupt(open_token(&old, &Alias { target: Key(3, 5), ..alias.clone() })));
        assert!(is_corrupt(open_token(&old, &Alias { until: 100, ..alias.clone() })));
        assert!(is_corrupt(open_token(&old, &Alias { token: None, ..alias })));
    }
}
