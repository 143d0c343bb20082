//! A write to a session, as the engines get it: `create`, `put`, `put_if` and `renew` are all this.
//! The rules about versions and principals, and how the stored payload is made, are written once
//! here.

use std::borrow::Cow;

use super::{
    header::{NEVER_AUTHENTICATED, RecordHeader, StoredRecord, is_login},
    key::{LookupKey, PrincipalKey},
    label::{self, LabelChange},
    policy::{StepTime, TimeoutChanges, Timeouts},
};
use crate::{
    crypto::aead::{self, DataKey, Nonce},
    error::{Error, ErrorKind, Result},
};

/// What a write does to the principal.
// A tag of one byte: otherwise it fills the 16 of the alignment, and a reader stalls on bytes that
// were written one by one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrincipalChange {
    Keep,
    Clear,
    Set(PrincipalKey),
}

/// When a write counts as a proof of the user's identity, which restarts both timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Authentication {
    /// `put`.
    Never,
    /// `create`, and `renew`: if it is a login, which sets another principal than before.
    AtLogin,
    /// `renew` after a reauthentication.
    Always,
}

pub(crate) struct Write<'a> {
    pub content: Content<'a>,
    pub timeouts: TimeoutChanges,
    pub principal: PrincipalChange,
    pub label: LabelChange<'a>,
    pub authentication: Authentication,
    /// Only if the session still has this version.
    pub if_version: Option<u64>,
    /// The key that the session is sealed under before the write, if the store seals.
    pub current_key: Option<&'a DataKey<'a>>,
}

impl Write<'_> {
    /// The header of a session that is created now.
    #[inline]
    pub(crate) fn new_header(&self, time: &StepTime) -> RecordHeader {
        // Not among the sessions that a `revoke_all` is removing, even in the same millisecond.
        let now = time.now.max(time.revoked_until.saturating_add(1));
        let blank = RecordHeader {
            version: 0,
            created: now,
            authenticated: NEVER_AUTHENTICATED,
            counted_from: now,
            last_seen: now,
            own: Timeouts { absolute: 0, idle: 0 },
            principal: None,
        };
        self.header_after(blank, now)
    }

    /// The header of a session after this write: it slides, the version counts payloads, and a
    /// login or reauthentication restarts the timeouts.
    #[inline]
    pub(crate) fn header_after(&self, before: RecordHeader, now: i64) -> RecordHeader {
        let principal = self.principal_after(before.principal);
        let is_proof = match self.authentication {
            Authentication::Never => false,
            Authentication::AtLogin => is_login(before.principal, principal),
            Authentication::Always => true,
        };
        RecordHeader {
            version: before.version + u64::from(self.content.is_new()),
            own: self.timeouts.apply_to(before.own),
            authenticated: if is_proof { now } else { before.authenticated },
            counted_from: if is_proof { now } else { before.counted_from },
            principal,
            ..before.touched_at(now)
        }
    }

    /// The label of a session after this write, as it is stored; empty if it has none. `before` is
    /// its header and stored label before, `after` its header after. A sealed label has a nonce of
    /// its own each time.
    pub(crate) fn label_after<'l>(
        &'l self,
        before: Option<(&RecordHeader, &'l [u8])>,
        after: &RecordHeader,
    ) -> Result<Cow<'l, [u8]>> {
        match (self.label, after.principal) {
            (_, None) => Ok(Cow::Borrowed(&[])),
            (LabelChange::Keep, principal) => {
                let kept = before.filter(|(before, _)| before.principal == principal);
                Ok(Cow::Borrowed(kept.map_or(&[], |(_, label)| label)))
            }
            (LabelChange::Set(new, Some(label_key)), Some(principal)) if !new.is_empty() => {
                let sealed = label::seal(label_key, aead::random_nonce()?, principal, after.created, new)?;
                Ok(Cow::Owned(sealed))
            }
            (LabelChange::Set(new, _), Some(_)) => Ok(Cow::Borrowed(new)),
        }
    }

    /// The most bytes that the label of this write takes as it is stored. One that is kept is not
    /// counted.
    pub(crate) fn new_label_len(&self) -> usize {
        match self.label {
            LabelChange::Keep => 0,
            LabelChange::Set(label, _) => label.len() + aead::OVERHEAD,
        }
    }

    /// `CONFLICT` if the write is for another version than this session has.
    pub(crate) fn check_version(&self, header: &RecordHeader) -> Result<()> {
        match self.if_version {
            Some(version) if version != header.version => {
                Err(Error::fixed(ErrorKind::Conflict, "the session has another version: it was changed in between"))
            }
            _ => Ok(()),
        }
    }

    /// `CORRUPT` if the record that is replaced was edited or planted. Without this check, the
    /// parts of its header that stay would be sealed with the new payload and be genuine from then
    /// on.
    pub(crate) fn check_genuine(&self, old: &StoredRecord) -> Result<()> {
        match self.current_key {
            Some(data_key) if self.content.is_new() => old.open(data_key).map(|_| ()),
            _ => Ok(()),
        }
    }

    pub(crate) fn principal_after(&self, before: Option<PrincipalKey>) -> Option<PrincipalKey> {
        match self.principal {
            PrincipalChange::Keep => before,
            PrincipalChange::Clear => None,
            PrincipalChange::Set(principal) => Some(principal),
        }
    }
}

/// What a write stores. Its length is known before; if the store seals, its bytes are known only
/// together with the record's header and key.
// A tag of a whole word: otherwise the bytes of a nonce follow it directly, and are moved one by
// one.
#[repr(u64)]
pub(crate) enum Content<'a> {
    /// A new payload, as it is.
    Plain(&'a [u8]),
    /// A new payload, to be sealed.
    Sealed(&'a [u8], &'a DataKey<'a>, Nonce),
    /// The stored bytes (renew only).
    Kept,
    /// The stored payload, opened with the first key and sealed under the second one (renew only).
    Resealed(&'a DataKey<'a>, &'a DataKey<'a>, Nonce),
}

impl Content<'_> {
    /// The same with a new nonce, for another attempt where other processes may have seen the first
    /// one: two texts under one nonce would reveal the key that authenticates them.
    pub(crate) fn with_fresh_nonce(&self) -> Result<Content<'_>> {
        Ok(match self {
            Content::Plain(payload) => Content::Plain(payload),
            Content::Sealed(payload, under, _) => Content::Sealed(payload, under, aead::random_nonce()?),
            Content::Kept => Content::Kept,
            Content::Resealed(from, to, _) => Content::Resealed(from, to, aead::random_nonce()?),
        })
    }

    /// Whether this is a new payload, which the version counts.
    fn is_new(&self) -> bool {
        matches!(self, Content::Plain(_) | Content::Sealed(..))
    }

    /// Whether `write_to` needs the record that is stored now.
    pub(crate) fn needs_old_payload(&self) -> bool {
        matches!(self, Content::Kept | Content::Resealed(..))
    }

    /// The number of bytes that will be stored; `old_len` is how many are stored now, if it
    /// `needs_old_payload`.
    pub(crate) fn stored_len(&self, old_len: usize) -> usize {
        match self {
            Content::Plain(payload) => payload.len(),
            Content::Sealed(payload, ..) => payload.len() + aead::OVERHEAD,
            Content::Kept | Content::Resealed(..) => old_len,
        }
    }

    /// Writes the bytes to be stored under `key` with `header` into `out`; `old` is the record that
    /// they replace.
    pub(crate) fn write_to(
        &self,
        key: &LookupKey,
        header: &RecordHeader,
        old: Option<StoredRecord>,
        out: &mut [u8],
    ) -> Result<()> {
        match (self, old) {
            (Content::Plain(payload), _) => out.copy_from_slice(payload),
            (Content::Sealed(payload, under, nonce), _) => header.seal(under, *nonce, key, payload, out)?,
            (Content::Kept, Some(old)) => out.copy_from_slice(old.payload),
            (Content::Resealed(from, to, nonce), Some(old)) => {
                let payload = old.open(from)?;
                header.seal(to, *nonce, key, &payload, out)?;
            }
            (Content::Kept | Content::Resealed(..), None) => {}
        }
        Ok(())
    }
}
