//! A session's label: what the pages that list a user's sessions show of it, such as its device. It
//! lies beside the record's header; on a sealing store it is sealed under a key that only the
//! principal's bytes give, so that `list` can show it and a copy of the store cannot.

use super::{
    header::{ASSOCIATED_DATA_FORMAT, SealedKind, concat_exact},
    key::PrincipalKey,
};
use crate::{
    crypto::{
        aead::{self, DataKey, Nonce},
        zeroize::ZeroizeOnDrop,
    },
    error::{Error, Result},
};

/// The longest label, in bytes.
pub(crate) const MAX_LABEL: usize = 255;
/// The longest label as it is stored.
pub(crate) const MAX_STORED_LABEL: usize = MAX_LABEL + aead::OVERHEAD;

/// What a write does to the label.
#[derive(Clone, Copy)]
pub(crate) enum LabelChange<'a> {
    /// It stays if the principal does.
    Keep,
    /// Replaces it, sealed under the key if there is one. Empty: removes it.
    Set(&'a [u8], Option<&'a DataKey<'a>>),
}

/// The label as it is stored.
pub(super) fn seal(
    label_key: &DataKey,
    nonce: Nonce,
    principal: PrincipalKey,
    created: i64,
    label: &[u8],
) -> Result<Vec<u8>> {
    let mut sealed = Vec::new();
    sealed.try_reserve_exact(label.len() + aead::OVERHEAD).map_err(|_| Error::no_memory())?;
    sealed.resize(label.len() + aead::OVERHEAD, 0);
    label_key.seal(nonce, &associated_data(principal, created), label, &mut sealed)?;
    Ok(sealed)
}

/// The label that was sealed; `CORRUPT` if it or the session was changed since.
pub(crate) fn open(
    label_key: &DataKey,
    principal: PrincipalKey,
    created: i64,
    sealed: &[u8],
) -> Result<ZeroizeOnDrop<Vec<u8>>> {
    label_key.open(&associated_data(principal, created), sealed)
}

/// The creation time binds a label to its session, also after a renewal.
fn associated_data(principal: PrincipalKey, created: i64) -> [u8; 2 + 32 + 8] {
    concat_exact([&[ASSOCIATED_DATA_FORMAT, SealedKind::Label as u8], &principal.bytes(), &created.to_le_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{aead::random_nonce, keyring::Keyring},
        error::ErrorKind,
    };

    #[test]
    fn moved_or_edited_label_is_corrupt() {
        let keyring = Keyring::default();
        let label_key = DataKey::new(&[1; 32], &keyring);
        let sealed = seal(&label_key, random_nonce().unwrap(), PrincipalKey(1, 2), 1000, b"Firefox").unwrap();
        assert_eq!(*open(&label_key, PrincipalKey(1, 2), 1000, &sealed).unwrap(), b"Firefox");
        let is_corrupt = |key: &DataKey, principal, created, sealed: &[u8]| {
            open(key, principal, created, sealed).is_err_and(|error| error.kind() == ErrorKind::Corrupt)
        };
        assert!(is_corrupt(&label_key, PrincipalKey(1, 3), 1000, &sealed), "of another principal");
        assert!(is_corrupt(&label_key, PrincipalKey(1, 2), 1001, &sealed), "of another session");
        assert!(is_corrupt(&DataKey::new(&[2; 32], &keyring), PrincipalKey(1, 2), 1000, &sealed), "under another key");
        for byte in 0..sealed.len() {
            let mut edited = sealed.clone();
            edited[byte] ^= 1;
            assert!(is_corrupt(&label_key, PrincipalKey(1, 2), 1000, &edited), "byte {byte}");
        }
    }
}
