//! Session ids: how one is generated. Nothing parses an id: it is only hashed (see `crypto::keys`),
//! and an id that was never generated is not found.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::{
    crypto::{random::random, zeroize::ZeroizeOnDrop},
    error::{Error, ErrorKind, Result},
};

/// The length of a session id in characters.
pub const SID_LEN: usize = 128;

/// 768 bits. OWASP ASVS 5.0 7.2.3 asks for at least 128.
const RANDOM_LEN: usize = 96;

/// A session id: 96 bytes of the operating system's randomness as 128 characters of base64url (RFC
/// 4648 section 5, without padding). It is a bearer token: it belongs into a cookie or header and
/// nowhere else.
///
/// It is wiped when dropped, and `Debug` does not show it.
// On the heap: moving it must not leave copies on the stack.
pub struct Sid(Box<ZeroizeOnDrop<[u8; SID_LEN]>>);

impl Sid {
    /// A new id.
    pub(crate) fn generate() -> Result<Sid> {
        let random = random::<RANDOM_LEN>()?;
        let mut sid = Sid(Box::new(ZeroizeOnDrop::new([0; SID_LEN])));
        // Constant time: base64 by table lookup would leave traces of the id in the cache.
        Base64UrlUnpadded::encode(random.as_slice(), sid.0.as_mut_slice())
            .map_err(|_| Error::fixed(ErrorKind::Random, "an id could not be encoded"))?;
        Ok(sid)
    }

    /// The 128 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.0.as_slice()).unwrap_or_default()
    }

    /// The 128 characters as bytes.
    pub fn as_bytes(&self) -> &[u8; SID_LEN] {
        &self.0
    }
}

impl AsRef<[u8]> for Sid {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sid(..)")
    }
}

/// The id that a client sent, as it is hashed. Bytes of another length become an id that cannot
/// have been minted, so that a malformed id costs the same hash and the same lookup as a
/// well-formed one.
#[inline]
pub(crate) fn normalize(sid: &[u8]) -> &[u8] {
    const MALFORMED: &[u8] = &[0; SID_LEN];
    if sid.len() == SID_LEN { sid } else { MALFORMED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_base64url_and_hidden_from_debug() {
        let sid = Sid::generate().unwrap();
        assert_eq!(sid.as_str().len(), SID_LEN);
        assert!(sid.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_eq!(format!("{sid:?}"), "Sid(..)");
    }
}
