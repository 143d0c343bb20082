//! Session ids: how one is minted. Nothing parses an id: it is only ever hashed (see `key`), and what was never
//! minted is not found.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use rand::{TryRng, rngs::SysRng};

use crate::{
    error::{Error, ErrorKind, Result},
    wiped::Wiped,
};

/// The length of a session id in characters.
pub const SID_LEN: usize = 128;

/// 768 bits. OWASP ASVS 5.0 7.2.3 asks for at least 128.
const RANDOM_LEN: usize = 96;

/// A session id: 96 bytes of the operating system's randomness as 128 characters of base64url (RFC 4648 section 5,
/// without padding). Whoever holds it is the session's bearer: it belongs into a cookie or header and nowhere else.
///
/// It is wiped when dropped, and `Debug` does not show it.
// On the heap: moving it must not leave copies on the stack.
pub struct Sid(Box<Wiped<[u8; SID_LEN]>>);

impl Sid {
    /// Straight from the operating system: a generator in user space repeats itself after `fork`.
    pub(crate) fn mint() -> Result<Sid> {
        let mut random = Wiped::new([0; RANDOM_LEN]);
        fill_random(random.as_mut_slice())?;
        let mut sid = Sid(Box::new(Wiped::new([0; SID_LEN])));
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

/// Random bytes of the operating system. Blocks only while its source is not yet seeded, early at boot.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    SysRng
        .try_fill_bytes(bytes)
        .map_err(|_| Error::fixed(ErrorKind::Random, "the operating system gave no random bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_128_characters_of_base64url_and_hidden_from_debug() {
        let sid = Sid::mint().unwrap();
        assert_eq!(sid.as_str().len(), SID_LEN);
        assert!(sid.as_str().bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'));
        assert_eq!(format!("{sid:?}"), "Sid(..)");
    }
}
