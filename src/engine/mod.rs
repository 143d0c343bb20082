//! What a storage engine must do. Each method is one atomic step against every other one, also across processes where the
//! engine is shared (`list` and `revoke`: in the set of sessions, `sweep`: for each session); the rules that a step
//! applies come from `record` and `policy`.

#[cfg(feature = "lmdb")]
pub(crate) mod lmdb;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[allow(dead_code)] // Its users follow.
pub(crate) mod registry;

use crate::{
    error::Result,
    os::clock::Clock,
    session::{
        alias::{Alias, Grace},
        header::{Entry, Meta, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::{Policy, StepTime},
        write::Write,
    },
    stats::{Counters, EngineUsage},
};

/// What a step is taken by.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub clock: Clock<'a>,
    pub policy: &'a Policy,
    /// Where the engine counts what only it sees: sessions cleared because expired, ended by a limit.
    pub counters: &'a Counters,
}

impl Context<'_> {
    /// Now: to be taken under the locks of the step.
    #[inline]
    pub(crate) fn step_time(&self) -> StepTime {
        StepTime { now: self.clock.now_ms(), timeouts: self.policy.timeouts() }
    }
}

/// What `Engine::read` lends.
pub(crate) struct Found<'a> {
    pub record: StoredRecord<'a>,
    /// Its end is that of the key that was given, if that is before the session's own.
    pub meta: Meta,
    /// If the key was that of a renewed session: the aliases on the way from it to the session.
    pub alias_chain: &'a [Alias],
}

/// Which per-session calls may block on another process, a disk or a network. The others take microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocking {
    /// `get`, `read`, `touch` and `reference`, and also `stats`.
    pub reads: bool,
    /// `create`, `put`, `put_if`, `renew`, `delete` and `delete_ref`.
    pub writes: bool,
}

pub(crate) type Reader<'a> = &'a mut dyn FnMut(Found) -> Result<()>;

pub(crate) trait Engine: Send + Sync {
    /// What every step begins with: the clock, the rules in force and the counters of the store, in this process.
    /// `FORKED` where the engine cannot be used in a forked child. Takes no lock before it has looked for a fork.
    fn enter(&self) -> Result<Context<'_>>;

    /// Must not wait itself.
    fn may_block(&self) -> Blocking;

    /// This engine for a forked child, with nothing in common with the parent's but where the sessions are; `None`: it
    /// cannot be used there.
    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>>;

    /// Inserts a session unless its key is taken, which is `EXISTS`. `FULL` at a limit, after clearing what has
    /// expired; ends the least recently used session of the principal that has too many.
    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta>;

    /// Lends a living session to `reader`, and slides it unless `peek` or the reader fails. Counts hits and misses.
    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()>;

    /// Slides a living session.
    fn touch(&self, cx: &Context, key: &LookupKey) -> Result<Meta>;

    /// Replaces the payload of a living session: never creates. `CONFLICT` if its version is not the one asked for.
    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta>;

    /// Moves a living session to a new key. The old one dies, or within the grace time reads what the new one holds.
    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta>;

    fn delete(&self, cx: &Context, key: &LookupKey) -> Result<()>;

    /// The key under which the living session that this key reads is held: another one within a grace time.
    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey>;

    /// Removes up to `max` expired sessions. Fewer: nothing is left.
    fn sweep(&self, cx: &Context, max: u64) -> Result<u64>;

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<Entry>>;

    /// Ends the sessions of a principal but the one that `except` reads, and says how many.
    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64>;

    fn usage(&self, cx: &Context) -> Result<EngineUsage>;

    /// A test has moved the clock: others may have to know.
    fn clock_moved(&self) -> Result<()> {
        Ok(())
    }

    /// A timeout became shorter: sessions may be due earlier than was noted.
    fn timeouts_shortened(&self) -> Result<()>;

    /// What is wrong with the engine's own data, a line each. `UNSUPPORTED` where nobody else can have touched them.
    fn check(&self) -> Result<Vec<String>>;
}
