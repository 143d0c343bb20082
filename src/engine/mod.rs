//! What a storage engine must do. Each method is one atomic step against every other one, also across processes
//! where the engine is shared; the rules that a step applies come from `record` and `policy`.

pub(crate) mod memory;

use crate::{
    error::Result,
    key::{Key, PrincipalKey},
    policy::{Limits, Timeouts},
    record::{Entry, Grace, Head, Stored, Write},
    seal::Token,
    stats::Counters,
};

/// The moment of a call and the rules in force at it.
pub(crate) struct Context<'a> {
    pub now: i64,
    pub timeouts: Timeouts,
    pub limits: Limits,
    /// Where the engine counts what only it sees: sessions cleared because expired, ended by a limit.
    pub counters: &'a Counters,
}

/// What `Engine::read` lends.
pub(crate) struct Found<'a> {
    pub stored: Stored<'a>,
    /// From when on the key that was given reads nothing any more, if that is before the session's own end.
    pub until: i64,
    /// If the key was that of a renewed session: what each key on the way left for the next one, if the store seals.
    pub way: &'a [(Key, Option<Box<Token>>)],
}

pub(crate) type Reader<'a> = &'a mut dyn FnMut(Found) -> Result<()>;

pub(crate) trait Engine: Send + Sync {
    /// Inserts a session unless its key is taken, which is `EXISTS`. `FULL` at a limit, after clearing what has
    /// expired; ends the least recently used session of the principal that has too many.
    fn create(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head>;

    /// Lends a living session to `reader`, and slides it unless `peek` or the reader fails.
    fn read(&self, cx: &Context, key: &Key, peek: bool, reader: Reader) -> Result<()>;

    /// Slides a living session.
    fn touch(&self, cx: &Context, key: &Key) -> Result<Head>;

    /// Replaces the payload of a living session: never creates. `CONFLICT` if its version is not the one asked for.
    fn put(&self, cx: &Context, key: &Key, write: &Write) -> Result<Head>;

    /// Moves a living session to a new key. The old one dies, or within the grace time reads what the new one holds.
    fn renew(&self, cx: &Context, old: &Key, new: &Key, write: &Write, grace: Grace) -> Result<Head>;

    fn delete(&self, cx: &Context, key: &Key) -> Result<()>;

    /// The key under which the living session that this key reads is held: another one within a grace time.
    fn resolve(&self, cx: &Context, key: &Key) -> Result<Key>;

    /// Removes up to `max` expired sessions. Fewer: nothing is left.
    fn sweep(&self, cx: &Context, max: u64) -> Result<u64>;

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>>;

    /// Ends the sessions of a principal but the one that `except` reads, and says how many.
    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&Key>) -> Result<u64>;

    /// The number of sessions held, and the bytes of their payloads.
    fn usage(&self) -> Result<(u64, u64)>;

    /// A timeout became shorter: sessions may be due earlier than was noted.
    fn timeouts_shortened(&self);
}
