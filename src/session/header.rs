//! What a session's record begins with, and what callers learn from it. The header says when a
//! session was created and last used, by which timeouts it ends and to which principal it belongs;
//! encrypted payloads are bound to it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{
    key::{LookupKey, PrincipalKey, Ref},
    policy::{FOREVER, StepTime, Timeouts},
};
use crate::{
    crypto::{
        aead::{DataKey, Nonce},
        zeroize::ZeroizeOnDrop,
    },
    error::{Error, Result},
};

/// What a store tells of a session besides its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub(crate) version: u64,
    pub(crate) created_ms: i64,
    pub(crate) last_seen_ms: i64,
    /// `FOREVER` if the session has no deadline.
    pub(crate) expires_ms: i64,
    /// `NEVER_AUTHENTICATED`, or when.
    pub(crate) authenticated_ms: i64,
    /// In force: the session's own, or else its store's.
    pub(crate) timeouts: Timeouts,
}

impl Meta {
    /// 1 when the session is created, and one more with every new payload.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the session was created. Renewing the id does not change it.
    pub fn created(&self) -> SystemTime {
        system_time(self.created_ms)
    }

    /// When the session was last used.
    pub fn last_seen(&self) -> SystemTime {
        system_time(self.last_seen_ms)
    }

    /// When the session ends unless it is used before: the earlier of its absolute and its idle
    /// deadline; `None` if it has neither.
    pub fn expires(&self) -> Option<SystemTime> {
        (self.expires_ms != FOREVER).then(|| system_time(self.expires_ms))
    }

    /// When the user last proved their identity: at the creation if it had a principal, at a login
    /// or at a reauthentication (see [`Store::renew`](crate::Store::renew)). `None`: never.
    pub fn authenticated(&self) -> Option<SystemTime> {
        (self.authenticated_ms != NEVER_AUTHENTICATED).then(|| system_time(self.authenticated_ms))
    }

    /// The absolute timeout in force, the session's own or its store's; `None`: it has none. It
    /// counts from the later of `created` and `authenticated`.
    pub fn timeout(&self) -> Option<Duration> {
        duration(self.timeouts.absolute)
    }

    /// The idle timeout in force, the session's own or its store's; `None`: it has none.
    pub fn idle_timeout(&self) -> Option<Duration> {
        duration(self.timeouts.idle)
    }
}

fn duration(timeout_ms: i64) -> Option<Duration> {
    (timeout_ms != FOREVER).then(|| Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)))
}

fn system_time(unix_ms: i64) -> SystemTime {
    let distance = Duration::from_millis(unix_ms.unsigned_abs());
    if unix_ms < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

impl Meta {
    /// The same with times that are later by `ms`.
    pub(crate) fn shifted_by(self, ms: i64) -> Meta {
        let expires_ms = if self.expires_ms == FOREVER { FOREVER } else { self.expires_ms.saturating_add(ms) };
        let authenticated_ms = match self.authenticated_ms {
            NEVER_AUTHENTICATED => NEVER_AUTHENTICATED,
            time => time + ms,
        };
        let (created_ms, last_seen_ms) = (self.created_ms + ms, self.last_seen_ms + ms);
        Meta { created_ms, last_seen_ms, expires_ms, authenticated_ms, ..self }
    }
}

/// One session in a principal's list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Names the session to [`Store::delete_ref`](crate::Store::delete_ref) and
    /// [`Store::touch_ref`](crate::Store::touch_ref). Never an id.
    pub reference: Ref,
    /// The length of the payload in bytes.
    pub payload_len: u64,
    /// Version and times.
    pub meta: Meta,
    /// What [`Options::label`](crate::Options::label) has set: 1 to 255 bytes.
    pub label: Option<Vec<u8>>,
}

/// An entry as an engine knows it, which has no key for the label.
pub(crate) struct StoredEntry {
    /// Without the label.
    pub entry: Entry,
    /// The label as it is stored: sealed if the store seals. Empty: none.
    pub label: Vec<u8>,
    /// The creation time in the record, which the label is bound to.
    pub created: i64,
}

/// What a session's record begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub version: u64,
    pub created: i64,
    /// When the user last proved their identity; `NEVER_AUTHENTICATED` if they did not.
    pub authenticated: i64,
    /// Where the absolute timeout begins, if that is before the later of `created` and
    /// `authenticated`: the clock was ahead then, and this is when it was found to be right.
    /// Otherwise that time.
    pub counted_from: i64,
    pub last_seen: i64,
    /// The session's own timeouts; 0 follows the store.
    pub own: Timeouts,
    pub principal: Option<PrincipalKey>,
}

/// The C API has the same number.
pub(crate) const NEVER_AUTHENTICATED: i64 = 0;

/// By how much the times of a record may be ahead of the clock: hosts and cached clocks differ a
/// little.
pub(crate) const MAX_CLOCK_LEAD_MS: i64 = 10_000;

impl RecordHeader {
    /// Whether the session was created or used while the clock was ahead of what it says now. It
    /// would live longer than its timeouts, by the error.
    pub(crate) fn is_ahead_of(&self, now: i64) -> bool {
        self.timeout_start().max(self.last_seen) > now.saturating_add(MAX_CLOCK_LEAD_MS)
    }

    /// The header of a session that lives no longer than its timeouts from now on. The creation
    /// time stays, because an encrypted payload is bound to it.
    pub(crate) fn pulled_back_to(self, now: i64) -> RecordHeader {
        let counted_from = self.timeout_start().min(now);
        RecordHeader { counted_from, last_seen: self.last_seen.min(now), ..self }
    }

    /// When the absolute timeout begins.
    pub(crate) fn timeout_start(&self) -> i64 {
        self.recorded_start().min(self.counted_from)
    }

    /// When the absolute timeout begins if the clock was right.
    pub(super) fn recorded_start(&self) -> i64 {
        self.created.max(self.authenticated)
    }

    /// The header after a use. A clock that went back (shared engines) does not move it back.
    pub(crate) fn touched_at(self, now: i64) -> RecordHeader {
        RecordHeader { last_seen: self.last_seen.max(now), ..self }
    }

    pub(crate) fn deadline(&self, store: Timeouts) -> i64 {
        self.own.or(store).deadline(self.timeout_start(), self.last_seen)
    }

    pub(crate) fn is_live(&self, time: &StepTime) -> bool {
        !self.has_expired(time) && !self.is_revoked(time)
    }

    /// Whether a `revoke_all` that is at work has ended the session.
    pub(crate) fn is_revoked(&self, time: &StepTime) -> bool {
        self.created <= time.revoked_until
    }

    /// Whether the session has ended by its timeouts.
    pub(crate) fn has_expired(&self, time: &StepTime) -> bool {
        time.now >= self.deadline(time.timeouts)
    }

    pub(crate) fn meta(&self, store: Timeouts) -> Meta {
        Meta {
            version: self.version,
            created_ms: self.created,
            last_seen_ms: self.last_seen,
            expires_ms: self.deadline(store),
            authenticated_ms: self.authenticated,
            timeouts: self.own.or(store),
        }
    }

    /// The entry of the session with this key, which is stored with this label.
    pub(crate) fn entry(&self, key: LookupKey, label: &[u8], payload_len: u64, store: Timeouts) -> Result<StoredEntry> {
        let entry = Entry { reference: key.into(), payload_len, meta: self.meta(store), label: None };
        Ok(StoredEntry { entry, label: try_to_vec(label)?, created: self.created })
    }

    /// Encrypts the payload of a record with this header into `out`, which is `aead::OVERHEAD`
    /// longer.
    pub(crate) fn seal(
        &self,
        data_key: &DataKey,
        nonce: Nonce,
        key: &LookupKey,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<()> {
        data_key.seal(nonce, &self.associated_data(key), payload, out)
    }

    /// What an encrypted payload is bound to. The last use is not part of it, because a get writes
    /// it; it is bounded by the absolute deadline, which is.
    fn associated_data(&self, key: &LookupKey) -> [u8; ASSOCIATED_DATA_LEN] {
        concat_exact([
            &[ASSOCIATED_DATA_FORMAT, SealedKind::Payload as u8],
            &key.bytes(),
            &self.created.to_le_bytes(),
            &self.authenticated.to_le_bytes(),
            &self.own.absolute.to_le_bytes(),
            &self.own.idle.to_le_bytes(),
            &[self.principal.is_some().into()],
            &self.principal.map_or([0; 32], |principal| principal.bytes()),
            &self.version.to_le_bytes(),
        ])
    }
}

/// Whether a renewal that changes the principal like this is a login: it sets one that is not the
/// one before.
pub(super) fn is_login(before: Option<PrincipalKey>, after: Option<PrincipalKey>) -> bool {
    after.is_some() && after != before
}

const ASSOCIATED_DATA_LEN: usize = 2 + 32 + 4 * 8 + 33 + 8;

pub(super) const ASSOCIATED_DATA_FORMAT: u8 = 2;

/// What is encrypted, so that one kind of text is never accepted as another one under the same key.
#[repr(u8)]
pub(super) enum SealedKind {
    Payload = 1,
    DataKey = 2,
    Label = 3,
}

/// A copy; `NOMEM` if there is no memory for it.
pub(crate) fn try_to_vec(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|_| Error::no_memory())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// The parts one behind the other; together they are `N` bytes long.
pub(super) fn concat_exact<const PARTS: usize, const N: usize>(parts: [&[u8]; PARTS]) -> [u8; N] {
    let mut data = [0; N];
    let mut at = 0;
    for part in parts {
        data[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N);
    data
}

/// A record as its engine holds it.
pub(crate) struct StoredRecord<'a> {
    pub key: LookupKey,
    pub header: &'a RecordHeader,
    /// The payload as it is stored: encrypted if the store seals.
    pub payload: &'a [u8],
}

impl StoredRecord<'_> {
    /// The decrypted payload; `CORRUPT` if it, the header or the key was changed since it was
    /// sealed.
    pub(crate) fn open(&self, data_key: &DataKey) -> Result<ZeroizeOnDrop<Vec<u8>>> {
        data_key.open(&self.header.associated_data(&self.key), self.payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{
            aead::{OVERHEAD, random_nonce},
            keyring::Keyring,
        },
        error::ErrorKind,
    };

    fn header() -> RecordHeader {
        RecordHeader {
            version: 3,
            created: 1000,
            authenticated: 1500,
            counted_from: 1500,
            last_seen: 2000,
            own: Timeouts { absolute: 0, idle: 60_000 },
            principal: Some(PrincipalKey(7, 0)),
        }
    }

    #[test]
    fn edited_header_or_key_is_corrupt() {
        let keyring = Keyring::default();
        let data_key = DataKey::new(&[1; 32], &keyring);
        let mut sealed = vec![0; 9 + OVERHEAD];
        header().seal(&data_key, random_nonce().unwrap(), &LookupKey(1, 2), b"role=user", &mut sealed).unwrap();
        let open = |key, header: &RecordHeader| StoredRecord { key, header, payload: &sealed }.open(&data_key);
        assert_eq!(*open(LookupKey(1, 2), &header()).unwrap(), b"role=user");
        assert!(open(LookupKey(1, 2), &RecordHeader { last_seen: 9999, ..header() }).is_ok(), "a get changes it");
        let edits: [RecordHeader; 8] = [
            RecordHeader { version: 4, ..header() },
            RecordHeader { created: 1001, ..header() },
            RecordHeader { authenticated: 1501, ..header() },
            RecordHeader { own: Timeouts { absolute: 1, idle: 60_000 }, ..header() },
            RecordHeader { own: Timeouts { absolute: 0, idle: 60_001 }, ..header() },
            RecordHeader { principal: Some(PrincipalKey(8, 0)), ..header() },
            RecordHeader { principal: Some(PrincipalKey(7, 1)), ..header() },
            RecordHeader { principal: None, ..header() },
        ];
        let is_corrupt =
            |key, header: &RecordHeader| open(key, header).is_err_and(|error| error.kind() == ErrorKind::Corrupt);
        for edited in edits {
            assert!(is_corrupt(LookupKey(1, 2), &edited), "{edited:?}");
        }
        assert!(is_corrupt(LookupKey(2, 2), &header()));
        assert!(is_corrupt(LookupKey(1, 3), &header()));
    }
}
