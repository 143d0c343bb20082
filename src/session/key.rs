//! The keys that engines see instead of ids and principals: keyed hashes of them, which
//! `crypto::keys` computes.

use std::{fmt, str::FromStr};

use crate::{
    crypto::keys::Digest,
    error::{Error, ErrorKind, Result},
};

/// The public reference of a session: names it in a list of devices or in a log, but gives no
/// access to it.
///
/// 32 opaque bytes. A reference stays the same for as long as the session keeps its id, and has a
/// meaning only in the store that returned it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(pub [u8; 32]);

/// 64 hexadecimal digits.
impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({self})")
    }
}

/// Reads what `Display` prints; capital digits are accepted too.
impl FromStr for Ref {
    type Err = Error;

    fn from_str(text: &str) -> Result<Ref> {
        let invalid = || Error::fixed(ErrorKind::Invalid, "a reference has 64 hexadecimal digits");
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| invalid())?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            for &digit in pair {
                let value = char::from(digit).to_digit(16).ok_or_else(invalid)?;
                *byte = *byte << 4 | value as u8;
            }
        }
        Ok(Ref(bytes))
    }
}

/// The key of a session in its engine, and its public reference. Engines of one process use 128
/// bits of it, and the rest is zero; shared engines use all 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LookupKey(pub u128, pub u128);

impl LookupKey {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.1.to_le_bytes());
        bytes
    }
}

impl From<Digest> for LookupKey {
    fn from(digest: Digest) -> LookupKey {
        LookupKey(digest.0, digest.1)
    }
}

impl From<LookupKey> for Ref {
    fn from(key: LookupKey) -> Ref {
        Ref(key.bytes())
    }
}

impl From<&Ref> for LookupKey {
    fn from(reference: &Ref) -> LookupKey {
        Digest::from_bytes(&reference.0).into()
    }
}

/// A principal as the engines see it: its keyed hash, as wide as a [`LookupKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PrincipalKey(pub u128, pub u128);

impl PrincipalKey {
    pub(crate) fn bytes(&self) -> [u8; 32] {
        LookupKey(self.0, self.1).bytes()
    }
}

impl From<Digest> for PrincipalKey {
    fn from(digest: Digest) -> PrincipalKey {
        PrincipalKey(digest.0, digest.1)
    }
}

impl From<[u8; 32]> for PrincipalKey {
    fn from(bytes: [u8; 32]) -> PrincipalKey {
        Digest::from_bytes(&bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_round_trips_to_key() {
        let key = LookupKey(0x0102_0304, 7);
        assert_eq!(LookupKey::from(&Ref::from(key)), key);
    }

    #[test]
    fn reference_parses_its_display() {
        let reference = Ref(std::array::from_fn(|i| i as u8 * 7));
        assert_eq!(reference.to_string().parse::<Ref>().unwrap(), reference);
        assert_eq!(reference.to_string().to_uppercase().parse::<Ref>().unwrap(), reference);
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
            assert!(wrong.parse::<Ref>().is_err(), "{wrong}");
        }
    }
}
