//! The old id of a session that was renewed with a grace time: for that long it reads what the new
//! id's key holds, and never writes it.

use super::{
    header::{ASSOCIATED_DATA_FORMAT, RecordHeader, SealedKind, StoredRecord, concat_exact, is_login},
    key::LookupKey,
    policy::StepTime,
};
use crate::{
    crypto::{
        aead::{self, DataKey, Nonce, WrappedKey},
        zeroize::ZeroizeOnDrop,
    },
    error::{Error, ErrorKind, Result},
};

/// The old ids of one session that read it at most. With one more the oldest ends before its grace
/// time is over, so that endless renewals do not make a store grow.
pub(crate) const MAX_ALIASES: usize = 64;

/// What a renewal leaves under the old id.
pub(crate) struct Grace<'a> {
    /// For how many milliseconds the old id reads; 0: not at all.
    pub ms: i64,
    /// The old and the new id's data key, if the store seals: the new one is sealed under the old
    /// one.
    pub keys: Option<(&'a DataKey<'a>, &'a DataKey<'a>, Nonce)>,
}

impl Grace<'_> {
    pub(crate) const NONE: Grace<'static> = Grace { ms: 0, keys: None };

    /// The same with a new nonce, as `Content::with_fresh_nonce`.
    pub(crate) fn with_fresh_nonce(&self) -> Result<Grace<'_>> {
        let keys = match self.keys {
            Some((from, to, _)) => Some((from, to, aead::random_nonce()?)),
            None => None,
        };
        Ok(Grace { ms: self.ms, keys })
    }

    /// The alias that a renewal from the key and header `old` to `new` leaves, if there is a grace
    /// time. It does not outlast the session's absolute deadline, so that its space is reclaimed.
    ///
    /// `INVALID` at a login: an attacker may know the old id (CWE-384).
    pub(crate) fn alias(
        &self,
        (old, before): (LookupKey, &RecordHeader),
        (new, header): (LookupKey, &RecordHeader),
        time: &StepTime,
    ) -> Result<Option<Alias>> {
        if self.ms == 0 {
            return Ok(None);
        }
        if is_login(before.principal, header.principal) {
            return Err(Error::fixed(ErrorKind::Invalid, GRACE_AT_LOGIN));
        }
        let end = header.timeout_start().saturating_add(header.own.or(time.timeouts).absolute);
        let until = time.now.saturating_add(self.ms).min(end);
        let mut alias = Alias { key: old, target: new, until, wrapped_key: None };
        if let Some((from, to, nonce)) = self.keys {
            alias.wrapped_key = Some(Box::new(to.wrap(from, nonce, &alias.associated_data())?));
        }
        Ok(Some(alias))
    }
}

pub(crate) const GRACE_AT_LOGIN: &str =
    "a login or a reauthentication takes no grace time, because an attacker may know the old id";

#[derive(Clone)]
pub(crate) struct Alias {
    pub key: LookupKey,
    pub target: LookupKey,
    /// It reads while `now < until`.
    pub until: i64,
    /// The target's data key sealed under that of the old id, if the store seals.
    pub wrapped_key: Option<Box<WrappedKey>>,
}

impl Alias {
    /// The target's data key, given that of the old id.
    fn unwrap_key<'a>(&self, data_key: &DataKey<'a>) -> Result<DataKey<'a>> {
        let wrapped = self.wrapped_key.as_ref().ok_or_else(Error::corrupt_record)?;
        data_key.unwrap_key(&self.associated_data(), wrapped)
    }

    fn associated_data(&self) -> [u8; ASSOCIATED_DATA_LEN] {
        concat_exact([
            &[ASSOCIATED_DATA_FORMAT, SealedKind::DataKey as u8],
            &self.key.bytes(),
            &self.target.bytes(),
            &self.until.to_le_bytes(),
        ])
    }
}

/// The way from a key over aliases to the session that it reads. The engine looks each key up.
pub(crate) struct AliasWalk {
    /// The key to look up next: at the end that of the session.
    pub key: LookupKey,
    /// Until when the first key reads the session: the earliest end of the aliases.
    pub until: i64,
    /// The aliases so far, in order.
    pub chain: Vec<Alias>,
}

impl From<LookupKey> for AliasWalk {
    fn from(key: LookupKey) -> AliasWalk {
        AliasWalk { key, until: i64::MAX, chain: Vec::new() }
    }
}

impl AliasWalk {
    pub(crate) fn has_ended(&self, now: i64) -> bool {
        now >= self.until
    }

    /// Continues at the target of an alias that stands at `key`.
    pub(crate) fn follow(&mut self, alias: Alias) {
        self.key = alias.target;
        self.until = self.until.min(alias.until);
        self.chain.push(alias);
    }
}

const ASSOCIATED_DATA_LEN: usize = 2 + 32 + 32 + 8;

/// The decrypted payload of a record that was reached over these aliases with the data key of the
/// first one's id.
pub(crate) fn open_through(
    alias_chain: &[Alias],
    data_key: &DataKey,
    record: &StoredRecord,
) -> Result<ZeroizeOnDrop<Vec<u8>>> {
    let mut unwrapped = None;
    for alias in alias_chain {
        unwrapped = Some(alias.unwrap_key(unwrapped.as_ref().unwrap_or(data_key))?);
    }
    record.open(unwrapped.as_ref().unwrap_or(data_key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::keyring::Keyring,
        session::{
            label::LabelChange,
            policy::{NONE_REVOKED, TimeoutChanges, Timeouts},
            write::{Authentication, Content, PrincipalChange, Write},
        },
    };

    #[test]
    fn edited_alias_is_corrupt() {
        let mut keyring = Keyring::default();
        assert!(keyring.add(&[1; 32]));
        let old = DataKey::new(&[1; 32], &keyring);
        let new = DataKey::new(&[2; 32], &keyring);
        let timeouts = Timeouts { absolute: 1000, idle: 1000 };
        let write = Write {
            content: Content::Plain(b""),
            timeouts: TimeoutChanges { absolute: None, idle: None },
            principal: PrincipalChange::Keep,
            label: LabelChange::Keep,
            authentication: Authentication::Never,
            if_version: None,
            current_key: None,
        };
        let grace = Grace { ms: 99, keys: Some((&old, &new, aead::random_nonce().unwrap())) };
        let time = StepTime { now: 0, timeouts, revoked_until: NONE_REVOKED };
        let header = write.new_header(&time);
        let alias = grace.alias((LookupKey(1, 2), &header), (LookupKey(3, 4), &header), &time).unwrap().unwrap();
        assert_eq!(alias.until, 99);
        assert!(alias.unwrap_key(&old).is_ok());
        let is_corrupt = |alias: Alias, data_key: &DataKey| {
            alias.unwrap_key(data_key).is_err_and(|error| error.kind() == ErrorKind::Corrupt)
        };
        assert!(is_corrupt(alias.clone(), &DataKey::new(&[3; 32], &keyring)));
        assert!(is_corrupt(Alias { key: LookupKey(1, 1), ..alias.clone() }, &old));
        assert!(is_corrupt(Alias { target: LookupKey(3, 5), ..alias.clone() }, &old));
        assert!(is_corrupt(Alias { until: 100, ..alias.clone() }, &old));
        assert!(is_corrupt(Alias { wrapped_key: None, ..alias }, &old));
    }
}
