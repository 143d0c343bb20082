//! `Store`: every rule of the contract that does not depend on the engine. Generates and hashes
//! ids, checks arguments and limits, encrypts and counts; the atomic steps are the engine's.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use crate::{
    crypto::{
        aead::{self, DataKey},
        keys::StoreKeys,
    },
    engine::{Blocking, Context, Engine},
    error::{Error, ErrorKind, Result},
    open::{self, Opened},
    session::{
        alias::{GRACE_AT_LOGIN, Grace, open_through},
        header::{Entry, Meta, StoredEntry, try_to_vec},
        id::{Sid, normalize},
        key::{LookupKey, PrincipalKey, Ref},
        label::{self, LabelChange, MAX_LABEL},
        policy::{Timeout, TimeoutChanges, whole_ms},
        write::{Authentication, Content, PrincipalChange, Write},
    },
    stats::{Count, Stats},
    sync::{ignore_poison, per_process::PerProcess},
    url::{EngineUrl, Url},
};

/// Whether reading a session counts as a use of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading slides the idle deadline.
    Slide,
    /// Reading changes nothing.
    Peek,
}

/// What `create`, `put` and `renew` do to a session's principal: the user that it belongs to.
#[derive(Clone, Copy, Default)]
pub enum Principal<'a> {
    /// Unchanged; in `create` none.
    #[default]
    Keep,
    /// Taken away. Invalid in `create`.
    Clear,
    /// A user's id or any other bytes, at least one. The store keeps only a hash.
    Set(&'a [u8]),
}

impl fmt::Debug for Principal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Principal::Keep => "Keep",
            Principal::Clear => "Clear",
            Principal::Set(_) => "Set(..)",
        })
    }
}

/// What a write sets besides the payload. The default changes nothing.
///
/// ```
/// use std::time::Duration;
/// use sss::{Options, Timeout};
///
/// let remember_me = Options::new().timeout(Timeout::After(Duration::from_secs(30 * 86_400))).idle_timeout(Timeout::Never);
/// ```
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Options<'a> {
    /// The session's absolute timeout, counted from its creation, or from the last login or
    /// reauthentication if that was later. `None`: unchanged; in `create` the store's.
    pub timeout: Option<Timeout>,
    /// The session's idle timeout, counted from its last use. `None`: unchanged; in `create` the
    /// store's.
    pub idle_timeout: Option<Timeout>,
    /// The principal that the session belongs to.
    pub principal: Principal<'a>,
    /// `renew` only: how long the old id may still read, but not past the session's absolute
    /// deadline. Zero: it ends at once. For requests under way when ids are rotated; not for a
    /// login or a reauthentication, because an attacker may know the old id. At most the last 64
    /// ids of a session read it.
    pub grace: Duration,
    /// With a principal only: up to 255 bytes that [`Store::list`] shows, such as the device and
    /// how the user logged in. `None`: a session whose principal stays keeps its label, any other
    /// has none. Empty: it has none. Never more secret than the list of the user's sessions: on a
    /// store that seals it is encrypted under a key that the principal's bytes give.
    pub label: Option<&'a [u8]>,
    /// `renew` only: the user has just proved their identity again (a password, a passkey), so both
    /// timeouts restart and [`Meta::authenticated`] is now (NIST SP 800-63B-4, 5.2).
    pub reauthenticated: bool,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("timeout", &self.timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("principal", &self.principal)
            .field("grace", &self.grace)
            .field("label", &self.label.map(|_| ".."))
            .field("reauthenticated", &self.reauthenticated)
            .finish()
    }
}

impl<'a> Options<'a> {
    /// Options that change nothing.
    pub const fn new() -> Options<'a> {
        Options {
            timeout: None,
            idle_timeout: None,
            principal: Principal::Keep,
            grace: Duration::ZERO,
            label: None,
            reauthenticated: false,
        }
    }

    /// Sets the session's absolute timeout.
    pub const fn timeout(self, timeout: Timeout) -> Options<'a> {
        Options { timeout: Some(timeout), ..self }
    }

    /// Sets the session's idle timeout.
    pub const fn idle_timeout(self, timeout: Timeout) -> Options<'a> {
        Options { idle_timeout: Some(timeout), ..self }
    }

    /// Sets the principal: a user's id or any other bytes, at least one.
    pub fn principal(self, principal: &'a (impl AsRef<[u8]> + ?Sized)) -> Options<'a> {
        Options { principal: Principal::Set(principal.as_ref()), ..self }
    }

    /// Takes the principal away, in `put` and `renew`.
    pub const fn clear_principal(self) -> Options<'a> {
        Options { principal: Principal::Clear, ..self }
    }

    /// Sets how long the old id may still read after `renew`.
    pub const fn grace(self, grace: Duration) -> Options<'a> {
        Options { grace, ..self }
    }

    /// Sets the label, together with the principal: at most 255 bytes. Empty: takes it away.
    pub fn label(self, label: &'a (impl AsRef<[u8]> + ?Sized)) -> Options<'a> {
        Options { label: Some(label.as_ref()), ..self }
    }

    /// Restarts both timeouts in `renew`: the user has proved their identity again.
    pub const fn reauthenticated(self) -> Options<'a> {
        Options { reauthenticated: true, ..self }
    }
}

/// A handle to a session store.
///
/// A clone is another handle to the same store. Dropping the last handle closes the store; a
/// `memory:` store is then wiped.
///
/// Any number of threads may call all methods at once. Each call on one session is one atomic step.
/// `list` and `revoke` fix their set of sessions at one moment and then visit each session; `sweep`
/// and `revoke_all` work in many small steps.
///
/// In a process that was forked after the store was opened, every method of a `memory:` store
/// returns [`ErrorKind::Forked`]. An `lmdb:` or `redis:` store works there: the child's first call
/// opens it again.
///
/// Session ids may be any bytes. If they are not the id of a live session, methods return
/// [`ErrorKind::NotFound`], whatever the reason.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    engine: Box<dyn Engine>,
    keys: Arc<StoreKeys>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store(..)")
    }
}

impl From<Opened> for Store {
    fn from(opened: Opened) -> Store {
        Store(Arc::new(Inner { engine: opened.engine, keys: Arc::new(opened.keys) }))
    }
}

impl Store {
    /// Opens the store that the URL names, and creates it if it does not exist. docs/deployment.md
    /// describes the URL.
    ///
    /// A store that is open already keeps its settings; a stricter timeout or limit in the URL
    /// holds for all its handles from then on. Another `clock` or `seal` is [`ErrorKind::Exists`].
    ///
    /// Errors: `Url` (the message names the part of the URL), `Exists`, `Invalid`, `Random`,
    /// `Busy`, `Io`, `Full`, `Corrupt`, `Unsupported`.
    pub fn open(url: &str) -> Result<Store> {
        static NAMED: PerProcess<Mutex<HashMap<String, Weak<Inner>>>> = PerProcess::new();
        let url = Url::parse(url)?;
        let EngineUrl::Memory(Some(name)) = &url.engine else {
            return open::open(&url).map(Store::from);
        };
        let mut named = ignore_poison(NAMED.get().lock());
        if let Some(inner) = named.get(name).and_then(Weak::upgrade) {
            return Store(inner).attach(&url);
        }
        named.retain(|_, store| store.strong_count() > 0);
        let store = Store::from(open::open(&url)?);
        named.insert(name.clone(), Arc::downgrade(&store.0));
        Ok(store)
    }

    /// Opens a store that exists, with the settings that it has: for tools that must not change it.
    /// Options in the URL apply except `durability`. Without the store's `secret_file`, calls that
    /// decrypt a payload return [`ErrorKind::Corrupt`]; all others work.
    ///
    /// Errors: those of [`open`](Store::open); `Io` if there is no store, `Unsupported` for
    /// `memory:`.
    pub fn open_existing(url: &str) -> Result<Store> {
        open::open_existing(&Url::parse(url)?).map(Store::from)
    }

    /// This store for a forked child; `None` if the engine cannot be used there.
    pub(crate) fn reopen_after_fork(&self) -> Option<Store> {
        let engine = self.0.engine.reopen_after_fork()?;
        Some(Store(Arc::new(Inner { engine, keys: Arc::clone(&self.0.keys) })))
    }

    /// Another handle to this store, after applying the stricter settings of `url`.
    fn attach(self, url: &Url) -> Result<Store> {
        let cx = self.0.engine.enter()?;
        if url.manual_clock.is_some_and(|manual| manual != cx.clock.is_manual()) {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another clock"));
        }
        if url.seal.is_some_and(|seals| seals != self.0.keys.seals()) {
            return Err(Error::fixed(ErrorKind::Exists, "the store is already open with another setting of seal"));
        }
        if cx.policy.tighten(&url.policy) {
            self.0.engine.timeouts_shortened()?;
        }
        Ok(self)
    }

    /// Which per-session calls may block: for callers that hold a global lock or a scheduler's
    /// thread of their runtime. Opening and closing a store, `sweep`, `list`, `revoke`, `revoke_all`
    /// and `check` may take long with every engine.
    pub fn may_block(&self) -> Blocking {
        self.0.engine.may_block()
    }

    /// The longest payload that the store accepts, in bytes.
    pub fn max_payload(&self) -> Result<u64> {
        Ok(self.0.engine.enter()?.policy.max_payload())
    }

    /// The most sessions that a principal can have; `u64::MAX` without a limit.
    pub fn max_per_principal(&self) -> Result<u64> {
        Ok(self.0.engine.enter()?.policy.limits().max_per_principal)
    }

    /// Whether a payload that `get` returns is certain to be one that this library stored: payloads
    /// never leave this process, or they are sealed. If not, deserializers must not trust it.
    /// (Without a `secret_file`, write access to the store and knowledge of an id suffice to seal a
    /// payload.)
    pub fn authenticates(&self) -> bool {
        self.0.keys.authenticates()
    }

    /// Creates a session, and returns its new id. With a principal this is a login too:
    /// [`Meta::authenticated`] is the creation time.
    ///
    /// Errors: `TooLarge`, `Full`, `Invalid` (an empty principal, a label without a principal or
    /// with more than 255 bytes, a grace time, a reauthentication), `Random`, `NoMem`.
    pub fn create(&self, payload: &[u8], options: &Options) -> Result<(Sid, Meta)> {
        self.run_counted(|cx| {
            if matches!(options.principal, Principal::Clear) {
                return Err(invalid("a new session has no principal to clear"));
            }
            check_not_renewing(options)?;
            let label_key = self.label_key(options);
            self.insert_with_new_id(cx, Count::Created, |key, data_key| {
                let write = Write {
                    content: Store::content(cx, payload, data_key)?,
                    timeouts: timeout_changes(options),
                    principal: self.principal_change(options)?,
                    label: label_change(options, label_key.as_ref())?,
                    authentication: Authentication::AtLogin,
                    if_version: None,
                    current_key: None,
                };
                self.0.engine.create(cx, key, &write)
            })
        })
    }

    /// A copy of a session's payload, and its metadata.
    ///
    /// Errors: `NotFound`, `NoMem`, `Corrupt`.
    pub fn get(&self, sid: impl AsRef<[u8]>, access: Access) -> Result<(Vec<u8>, Meta)> {
        self.read(sid, access, |payload, meta| {
            let mut copy = Vec::new();
            copy.try_reserve_exact(payload.len()).map_err(|_| Error::no_memory())?;
            copy.extend_from_slice(payload);
            Ok((copy, *meta))
        })
    }

    /// Lends the payload of a session to `f`, so that it is copied once, straight to its
    /// destination.
    ///
    /// A lock is held during the call: `f` must be short and must not call the store. If `f` fails,
    /// the session does not slide, and its error is returned.
    pub fn read<R, E: From<Error>>(
        &self,
        sid: impl AsRef<[u8]>,
        access: Access,
        f: impl FnOnce(&[u8], &Meta) -> Result<R, E>,
    ) -> Result<R, E> {
        self.read_up_to(sid, access, usize::MAX, f)
    }

    /// `read`, but only if the payload has no more than `max_len` bytes. Otherwise it returns
    /// `TooSmall` before decrypting, and the session does not slide. For callers that must not
    /// spend long here.
    pub fn read_up_to<R, E: From<Error>>(
        &self,
        sid: impl AsRef<[u8]>,
        access: Access,
        max_len: usize,
        f: impl FnOnce(&[u8], &Meta) -> Result<R, E>,
    ) -> Result<R, E> {
        self.run(|cx| {
            let (key, data_key) = self.session_keys(sid.as_ref());
            let mut f = Some(f);
            let mut outcome = None;
            let read = self.0.engine.read(cx, &key, access == Access::Peek, &mut |found| {
                let overhead = if data_key.is_some() { aead::OVERHEAD } else { 0 };
                if found.record.payload.len().saturating_sub(overhead) > max_len {
                    return Err(Error::fixed(ErrorKind::TooSmall, "the payload is longer than was asked for"));
                }
                let payload;
                let bytes = match &data_key {
                    None => found.record.payload,
                    Some(data_key) => {
                        payload = open_through(found.alias_chain, data_key, &found.record)?;
                        &payload
                    }
                };
                let f = f.take().ok_or_else(|| Error::fixed(ErrorKind::Panic, "a session was read twice"))?;
                let result = outcome.insert(f(bytes, &found.meta));
                // The engine needs to know only that the session must not slide.
                if result.is_ok() { Ok(()) } else { Err(Error::fixed(ErrorKind::Invalid, "the closure failed")) }
            });
            match (read, outcome) {
                // The closure's failure says nothing of the store.
                (_, Some(Err(error))) => Err(error),
                (Ok(()), Some(Ok(result))) => Ok(result),
                (Err(error), _) => {
                    count_failure(cx, &error);
                    Err(error.into())
                }
                (Ok(()), None) => Err(Error::fixed(ErrorKind::Panic, "a session was not read").into()),
            }
        })
    }

    /// Replaces the payload of a live session, and slides it. Never creates and never resurrects a
    /// session: one that was deleted, revoked or has expired is `NotFound`, even if that happened
    /// at the same time.
    ///
    /// Errors: `NotFound`, `TooLarge`, `Full`, `Invalid`, `NoMem`, `Corrupt`.
    pub fn put(&self, sid: impl AsRef<[u8]>, payload: &[u8], options: &Options) -> Result<Meta> {
        self.put_at(sid.as_ref(), None, payload, options)
    }

    /// `put`, but only if the session still has this version. Otherwise it returns `Conflict`, and
    /// nothing changes.
    pub fn put_if(&self, sid: impl AsRef<[u8]>, version: u64, payload: &[u8], options: &Options) -> Result<Meta> {
        self.put_at(sid.as_ref(), Some(version), payload, options)
    }

    fn put_at(&self, sid: &[u8], version: Option<u64>, payload: &[u8], options: &Options) -> Result<Meta> {
        self.run_counted(|cx| {
            check_not_renewing(options)?;
            let (key, data_key) = self.session_keys(sid);
            let label_key = self.label_key(options);
            let write = Write {
                content: Store::content(cx, payload, data_key.as_ref())?,
                timeouts: timeout_changes(options),
                principal: self.principal_change(options)?,
                label: label_change(options, label_key.as_ref())?,
                authentication: Authentication::Never,
                if_version: version,
                current_key: data_key.as_ref(),
            };
            let meta = self.0.engine.put(cx, &key, &write)?;
            cx.counters.count(Count::Puts, &key);
            Ok(meta)
        })
    }

    /// Slides the idle deadline, like `get`.
    pub fn touch(&self, sid: impl AsRef<[u8]>) -> Result<Meta> {
        self.run_counted(|cx| self.0.engine.touch(cx, &self.key(sid), false))
    }

    /// `touch` by reference, or with [`Access::Peek`] only its answer: whether the session is still
    /// alive. For a long-lived connection, which does not hold the id. The reference of a session
    /// that was renewed is `NotFound`.
    pub fn touch_ref(&self, reference: &Ref, access: Access) -> Result<Meta> {
        self.run_counted(|cx| self.0.engine.touch(cx, &reference.into(), access == Access::Peek))
    }

    /// Gives a session a new id, in one atomic step. Call it at login, against session fixation
    /// (CWE-384).
    ///
    /// The creation time stays. So do the payload (`None`), the principal and its label unless they
    /// are given. The old id ends, or with a grace time reads the session for that long and never
    /// writes it. If the call fails, the session keeps its old id.
    ///
    /// Three uses:
    /// - *Rotation*: the principal stays. The absolute deadline stays too.
    /// - *Login*: the session gets another principal than it had, or its first one. Both timeouts
    ///   restart, and [`Meta::authenticated`] is now.
    /// - *Reauthentication* ([`Options::reauthenticated`]): the same, with any principal.
    ///
    /// Errors: those of [`put`](Store::put), `Invalid` for a grace time with a login or a
    /// reauthentication (the session stays as it was), and `Random`.
    pub fn renew(&self, sid: impl AsRef<[u8]>, payload: Option<&[u8]>, options: &Options) -> Result<(Sid, Meta)> {
        self.run_counted(|cx| {
            let authentication = match options.reauthenticated {
                false => Authentication::AtLogin,
                true if !options.grace.is_zero() => return Err(invalid(GRACE_AT_LOGIN)),
                true if matches!(options.principal, Principal::Clear) => {
                    return Err(invalid("a reauthentication cannot take the principal away"));
                }
                true => Authentication::Always,
            };
            let (old, old_data_key) = self.session_keys(sid.as_ref());
            let label_key = self.label_key(options);
            self.insert_with_new_id(cx, Count::Renewed, |new, data_key| {
                let sealed = old_data_key.as_ref().zip(data_key);
                let content = match (payload, sealed) {
                    (Some(payload), _) => Store::content(cx, payload, data_key)?,
                    (None, None) => Content::Kept,
                    (None, Some((from, to))) => Content::Resealed(from, to, aead::random_nonce()?),
                };
                let keys = match sealed {
                    Some((from, to)) if !options.grace.is_zero() => Some((from, to, aead::random_nonce()?)),
                    _ => None,
                };
                let grace = Grace { ms: whole_ms(options.grace), keys };
                let write = Write {
                    content,
                    timeouts: timeout_changes(options),
                    principal: self.principal_change(options)?,
                    label: label_change(options, label_key.as_ref())?,
                    authentication,
                    if_version: None,
                    current_key: old_data_key.as_ref(),
                };
                self.0.engine.renew(cx, &old, new, &write, &grace)
            })
        })
    }

    /// Ends a session, and wipes its payload. A second call returns `NotFound`.
    pub fn delete(&self, sid: impl AsRef<[u8]>) -> Result<()> {
        self.run_counted(|cx| self.delete_key(cx, &self.key(sid), None))
    }

    /// Ends the session with this reference; with a principal, only if it is of that principal,
    /// otherwise it is `NotFound`. On behalf of a user give theirs, so that a page of devices
    /// cannot end another user's session (CWE-639). The reference of a session that was renewed is
    /// `NotFound`.
    pub fn delete_ref(&self, reference: &Ref, principal: Option<&[u8]>) -> Result<()> {
        self.run_counted(|cx| {
            let principal = principal.map(|principal| self.principal(principal)).transpose()?;
            self.delete_key(cx, &reference.into(), principal)
        })
    }

    fn delete_key(&self, cx: &Context, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()> {
        self.0.engine.delete(cx, key, principal)?;
        cx.counters.count(Count::Deleted, key);
        Ok(())
    }

    /// Removes up to `max` expired sessions, and returns how many. Fewer than `max`: none is left.
    ///
    /// The cost grows with what is expired, not with what is live, and other threads run in
    /// between.
    ///
    /// Only sweeps return free memory of a `memory:` store to the system: up to 16 MiB for a `max`
    /// of 1000.
    pub fn sweep(&self, max: u64) -> Result<u64> {
        self.run_counted(|cx| self.0.engine.sweep(cx, max))
    }

    /// The live sessions of a principal, the oldest first. They do not slide.
    ///
    /// Errors: `Invalid`, `NoMem`; if sealed also `Corrupt` (a label that was edited, or sealed with
    /// a secret that is not in the `secret_file` any more).
    pub fn list(&self, principal: &[u8]) -> Result<Vec<Entry>> {
        self.run_counted(|cx| {
            let key = self.principal(principal)?;
            let stored = self.0.engine.list(cx, key)?;
            let is_labelled = stored.iter().any(|stored| !stored.label.is_empty());
            let label_key = if is_labelled { self.0.keys.label(principal) } else { None };
            let mut entries = Vec::new();
            entries.try_reserve_exact(stored.len()).map_err(|_| Error::no_memory())?;
            for StoredEntry { mut entry, label, created } in stored {
                entry.label = match &label_key {
                    _ if label.is_empty() => None,
                    None => Some(label),
                    Some(label_key) => Some(try_to_vec(&label::open(label_key, key, created, &label)?)?),
                };
                entries.push(entry);
            }
            entries.sort_unstable_by_key(|entry| (entry.meta.created_ms, entry.reference));
            Ok(entries)
        })
    }

    /// Ends all sessions of a principal, and returns how many were live. Every session that
    /// `create` or `renew` had returned before this call is ended when it returns.
    ///
    /// `except` excludes the session that this id reads ("log out my other devices"). If it reads
    /// none of the principal's, no session is excluded.
    pub fn revoke(&self, principal: &[u8], except: Option<&[u8]>) -> Result<u64> {
        self.run_counted(|cx| {
            let except = except.map(|sid| self.key(sid));
            self.0.engine.revoke(cx, self.principal(principal)?, except.as_ref())
        })
    }

    /// Ends all sessions of the store, and returns how many were live: after an incident, such as a
    /// key that has leaked. Every session that `create` or `renew` had returned before this call is
    /// ended when it returns.
    ///
    /// Works in steps that keep no other call waiting for long. Sessions that are created meanwhile
    /// may end too, or not. The number may lack sessions that other calls have removed meanwhile,
    /// except in a `memory:` store.
    pub fn revoke_all(&self) -> Result<u64> {
        self.run_counted(|cx| self.0.engine.revoke_all(cx))
    }

    /// The public reference of a live session, which does not slide.
    pub fn reference(&self, sid: impl AsRef<[u8]>) -> Result<Ref> {
        self.run_counted(|cx| Ok(self.0.engine.resolve(cx, &self.key(sid))?.into()))
    }

    /// The store's counters.
    pub fn stats(&self) -> Result<Stats> {
        self.run_counted(|cx| Ok(cx.counters.snapshot(&self.0.engine.usage(cx)?)))
    }

    /// Checks the whole store for inconsistencies, and returns a line for each; none if it is
    /// sound. For operators: it takes a while, blocks no other call, and shows no id and no
    /// payload.
    ///
    /// Errors: `Unsupported` for `memory:`.
    pub fn check(&self) -> Result<Vec<String>> {
        self.run_counted(|_| self.0.engine.check())
    }

    /// Moves a manual clock forward: for tests, on a store opened with `clock=manual`.
    pub fn advance_clock(&self, ms: i64) -> Result<()> {
        self.run(|cx| cx.clock.advance(ms))?;
        self.0.engine.clock_moved()
    }

    /// Runs a step: in a forked child it may end here.
    fn run<T, E: From<Error>>(&self, step: impl FnOnce(&Context) -> Result<T, E>) -> Result<T, E> {
        // By reference: a processor that moves what it has just written in smaller parts waits for
        // all of them.
        match self.0.engine.enter() {
            Ok(ref cx) => step(cx),
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a step, and counts its failure by kind.
    fn run_counted<T>(&self, step: impl FnOnce(&Context) -> Result<T>) -> Result<T> {
        self.run(|cx| step(cx).inspect_err(|error| count_failure(cx, error)))
    }

    /// The keys of the bytes that a client sent as an id; the data key only if the store seals.
    #[inline]
    fn session_keys(&self, sid: &[u8]) -> (LookupKey, Option<DataKey<'_>>) {
        let (digest, data_key) = self.0.keys.session(normalize(sid));
        (digest.into(), data_key)
    }

    fn key(&self, sid: impl AsRef<[u8]>) -> LookupKey {
        self.session_keys(sid.as_ref()).0
    }

    fn principal(&self, principal: &[u8]) -> Result<PrincipalKey> {
        if principal.is_empty() {
            return Err(invalid("the principal is empty"));
        }
        Ok(self.0.keys.principal(principal).into())
    }

    /// A new payload as the engines take it.
    #[inline]
    fn content<'a>(cx: &Context, payload: &'a [u8], data_key: Option<&'a DataKey<'a>>) -> Result<Content<'a>> {
        let longest = cx.policy.max_payload();
        if payload.len() as u64 > longest {
            return Err(too_large(payload.len(), longest));
        }
        Ok(match data_key {
            None => Content::Plain(payload),
            Some(data_key) => Content::Sealed(payload, data_key, aead::random_nonce()?),
        })
    }

    /// The key that the label in these options is sealed under, if there is one and the store seals.
    #[inline]
    fn label_key(&self, options: &Options) -> Option<DataKey<'_>> {
        match (options.label, options.principal) {
            (Some(_), Principal::Set(principal)) => self.0.keys.label(principal),
            _ => None,
        }
    }

    #[inline]
    fn principal_change(&self, options: &Options) -> Result<PrincipalChange> {
        match options.principal {
            Principal::Keep => Ok(PrincipalChange::Keep),
            Principal::Clear => Ok(PrincipalChange::Clear),
            Principal::Set(principal) => Ok(PrincipalChange::Set(self.principal(principal)?)),
        }
    }

    /// Calls `store` with a new id until it is not taken, and counts it. A collision of 768 random
    /// bits is not expected to happen; if it does, nothing is overwritten.
    fn insert_with_new_id(
        &self,
        cx: &Context,
        what: Count,
        mut store: impl FnMut(&LookupKey, Option<&DataKey>) -> Result<Meta>,
    ) -> Result<(Sid, Meta)> {
        loop {
            let sid = Sid::generate()?;
            let (key, data_key) = self.session_keys(sid.as_bytes());
            match store(&key, data_key.as_ref()) {
                Ok(meta) => {
                    cx.counters.count(what, &key);
                    return Ok((sid, meta));
                }
                Err(error) if error.kind() == ErrorKind::Exists => continue,
                Err(error) => return Err(error),
            }
        }
    }
}

#[cold]
fn too_large(len: usize, longest: u64) -> Error {
    Error::new(ErrorKind::TooLarge, format!("the payload has {len} bytes, max_payload is {longest}"))
}

fn count_failure(cx: &Context, error: &Error) {
    use ErrorKind::*;
    match error.kind() {
        Conflict => cx.counters.add(Count::Conflicts, 1),
        TooLarge | Full => cx.counters.add(Count::Rejected, 1),
        // The caller's, or no failure at all.
        NotFound | Invalid | TooSmall | Unsupported | Handle | Exists | Url | Forked => {}
        Io | Unavailable | Timeout | Busy | Corrupt | Random | NoMem | Panic => cx.counters.add(Count::Errors, 1),
    }
}

fn check_not_renewing(options: &Options) -> Result<()> {
    if !options.grace.is_zero() {
        return Err(invalid("a grace time is for renew only"));
    }
    if options.reauthenticated {
        return Err(invalid("a reauthentication is for renew only"));
    }
    Ok(())
}

fn timeout_changes(options: &Options) -> TimeoutChanges {
    TimeoutChanges { absolute: options.timeout, idle: options.idle_timeout }
}

#[inline]
fn label_change<'a>(options: &Options<'a>, label_key: Option<&'a DataKey<'a>>) -> Result<LabelChange<'a>> {
    let Some(label) = options.label else { return Ok(LabelChange::Keep) };
    check_label(label, options.principal)?;
    Ok(LabelChange::Set(label, label_key))
}

#[inline(never)]
fn check_label(label: &[u8], principal: Principal) -> Result<()> {
    if !matches!(principal, Principal::Set(_)) {
        return Err(invalid("a label without a principal"));
    }
    if label.len() > MAX_LABEL {
        let message = format!("the label has {} bytes, at most {MAX_LABEL} are allowed", label.len());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    Ok(())
}

fn invalid(message: &'static str) -> Error {
    Error::fixed(ErrorKind::Invalid, message)
}
