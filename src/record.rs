//! The head of a session's record, and how a write changes it. Nothing here keeps state: every engine calls it inside its
//! own atomic step, so that the rules about versions, sliding and timeouts are written once.

use crate::{
    error::{Error, ErrorKind, Result},
    key::{Key, PrincipalKey, Ref},
    policy::{Moment, Timeouts},
    seal::{self, DataKey, Nonce, Token},
};

/// What is known of a session besides its payload. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// 1 when created, and one more with every new payload.
    pub version: u64,
    /// When the session began. Renewing the id does not change it.
    pub created_ms: i64,
    /// When it was used last.
    pub last_seen_ms: i64,
    /// When it dies unless it is used before: the earlier of the absolute and the idle deadline, `FOREVER` if neither.
    pub expires_ms: i64,
}

/// One session in a principal's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Names the session to `Store::delete_ref`. Never an id.
    pub reference: Ref,
    /// The length of the payload in bytes.
    pub payload_len: u64,
    /// Version and times.
    pub meta: Meta,
}

/// The head of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub version: u64,
    pub created: i64,
    pub last_seen: i64,
    /// The session's own timeouts; 0 follows the store.
    pub own: Timeouts,
    pub principal: Option<PrincipalKey>,
}

/// What a write does to the principal.
// A tag of one byte: else it fills the 16 of the alignment, and whoever reads it waits for the bytes written one by one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrincipalChange {
    Keep,
    Clear,
    Set(PrincipalKey),
}

/// A write: `create`, `put`, `put_if` and `renew` are all this.
pub(crate) struct Write<'a> {
    pub content: Content<'a>,
    /// 0 keeps what the session has.
    pub timeouts: Timeouts,
    pub principal: PrincipalChange,
    /// Only if the session still has this version.
    pub if_version: Option<u64>,
    /// What the session is sealed under now, if the store seals.
    pub opens: Option<&'a DataKey<'a>>,
}

/// What a write stores. Its length is known before; its bytes, if they are sealed, only together with the head and the
/// key that they will stand under.
// A tag of a whole word: else the bytes of a nonce stand between it and the next one, and are moved one by one.
#[repr(u64)]
pub(crate) enum Content<'a> {
    /// A new payload, as it is.
    Plain(&'a [u8]),
    /// A new payload, sealed.
    Sealed(&'a [u8], &'a DataKey<'a>, Nonce),
    /// The stored bytes (renew only).
    Kept,
    /// The stored payload, sealed anew from one data key to the other (renew only).
    Resealed(&'a DataKey<'a>, &'a DataKey<'a>, Nonce),
}

/// A record as its engine holds it.
pub(crate) struct Stored<'a> {
    pub key: Key,
    pub head: &'a Head,
    pub bytes: &'a [u8],
}

impl Content<'_> {
    /// The same under another nonce, for another attempt where others may have seen the first one: two texts under one nonce
    /// would give away the key that authenticates them.
    pub(crate) fn anew(&self) -> Result<Content<'_>> {
        Ok(match self {
            Content::Plain(payload) => Content::Plain(payload),
            Content::Sealed(payload, under, _) => Content::Sealed(payload, under, seal::nonce()?),
            Content::Kept => Content::Kept,
            Content::Resealed(from, to, _) => Content::Resealed(from, to, seal::nonce()?),
        })
    }

    /// Whether this is a new payload, so that the version counts it.
    fn is_new(&self) -> bool {
        matches!(self, Content::Plain(_) | Content::Sealed(..))
    }

    /// Whether `fill` needs what is stored now.
    pub(crate) fn reads_old(&self) -> bool {
        matches!(self, Content::Kept | Content::Resealed(..))
    }

    /// The number of bytes that will be stored; `now` is how many are, where it `reads_old`.
    pub(crate) fn stored_len(&self, now: usize) -> usize {
        match self {
            Content::Plain(payload) => payload.len(),
            Content::Sealed(payload, ..) => payload.len() + seal::OVERHEAD,
            Content::Kept | Content::Resealed(..) => now,
        }
    }

    /// Writes the bytes to be stored under `key` with `head` into `out`, in place of `old`.
    pub(crate) fn fill(&self, key: &Key, head: &Head, old: Option<Stored>, out: &mut [u8]) -> Result<()> {
        match (self, old) {
            (Content::Plain(payload), _) => out.copy_from_slice(payload),
            (Content::Sealed(payload, under, nonce), _) => seal::seal(under, *nonce, key, head, payload, out)?,
            (Content::Kept, Some(old)) => out.copy_from_slice(old.bytes),
            (Content::Resealed(from, to, nonce), Some(old)) => {
                let payload = seal::open(from, &old.key, old.head, old.bytes)?;
                seal::seal(to, *nonce, key, head, &payload, out)?;
            }
            (Content::Kept | Content::Resealed(..), None) => {}
        }
        Ok(())
    }
}

/// What a renewal leaves behind at the old id.
pub(crate) struct Grace<'a> {
    /// For how many milliseconds the old id reads; 0: not at all.
    pub ms: i64,
    /// The old and the new id's data key, if the store seals: the new one is sealed under the old one.
    pub keys: Option<(&'a DataKey<'a>, &'a DataKey<'a>, Nonce)>,
}

impl Grace<'_> {
    /// The same under another nonce, as `Content::anew`.
    pub(crate) fn anew(&self) -> Result<Grace<'_>> {
        let keys = match self.keys {
            Some((from, to, _)) => Some((from, to, seal::nonce()?)),
            None => None,
        };
        Ok(Grace { ms: self.ms, keys })
    }

    pub(crate) const NONE: Grace<'static> = Grace { ms: 0, keys: None };

    /// The old id's alias, if there is a grace time. It does not outlast the absolute deadline that the session has as
    /// `head` says, so that its place comes back.
    pub(crate) fn alias(&self, old: Key, new: Key, head: &Head, moment: &Moment) -> Result<Option<Alias>> {
        if self.ms == 0 {
            return Ok(None);
        }
        let end = head.created.saturating_add(head.own.or(moment.timeouts).absolute);
        let until = moment.now.saturating_add(self.ms).min(end);
        let token = match self.keys {
            None => None,
            Some((from, to, nonce)) => Some(Box::new(seal::token(from, to, nonce, &old, &new, until)?)),
        };
        Ok(Some(Alias { key: old, target: new, until, token }))
    }
}

/// The old id of a session that was renewed with a grace time: reads what another key holds.
#[derive(Clone)]
pub(crate) struct Alias {
    pub key: Key,
    pub target: Key,
    /// It reads while `now < until`.
    pub until: i64,
    /// What opens the target to the old id, if the store seals.
    pub token: Option<Box<Token>>,
}

impl Head {
    /// The head of a session that begins now.
    pub(crate) fn begin(now: i64, write: &Write) -> Head {
        let blank =
            Head { version: 0, created: now, last_seen: now, own: Timeouts { absolute: 0, idle: 0 }, principal: None };
        blank.written(now, write)
    }

    /// The head after a write: it slides, and the version counts payloads.
    pub(crate) fn written(self, now: i64, write: &Write) -> Head {
        Head {
            version: self.version + u64::from(write.content.is_new()),
            own: write.timeouts.or(self.own),
            principal: write.principal_after(self.principal),
            ..self.seen(now)
        }
    }

    /// The head after a use. A clock that went back (shared engines) does not move it back.
    pub(crate) fn seen(self, now: i64) -> Head {
        Head { last_seen: self.last_seen.max(now), ..self }
    }

    pub(crate) fn deadline(&self, store: Timeouts) -> i64 {
        self.own.or(store).deadline(self.created, self.last_seen)
    }

    pub(crate) fn lives(&self, moment: &Moment) -> bool {
        moment.now < self.deadline(moment.timeouts)
    }

    pub(crate) fn meta(&self, store: Timeouts) -> Meta {
        Meta {
            version: self.version,
            created_ms: self.created,
            last_seen_ms: self.last_seen,
            expires_ms: self.deadline(store),
        }
    }

    pub(crate) fn entry(&self, key: Key, payload_len: u64, store: Timeouts) -> Entry {
        Entry { reference: key.into(), payload_len, meta: self.meta(store) }
    }
}

impl Write<'_> {
    /// `CONFLICT` if the write is for another version than this session has.
    pub(crate) fn check_version(&self, head: &Head) -> Result<()> {
        match self.if_version {
            Some(version) if version != head.version => {
                Err(Error::fixed(ErrorKind::Conflict, "the session has another version: it was changed in between"))
            }
            _ => Ok(()),
        }
    }

    /// `CORRUPT` if what is to be replaced was edited or planted where others can write: what of its head stays would be
    /// sealed anew with the new payload, and be genuine from then on.
    pub(crate) fn check_genuine(&self, old: &Stored) -> Result<()> {
        match self.opens {
            Some(data_key) if self.content.is_new() => seal::open(data_key, &old.key, old.head, old.bytes).map(|_| ()),
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
