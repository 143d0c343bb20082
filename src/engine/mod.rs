//! What a storage engine must do. Each method is one atomic step, also between processes where the
//! engine is shared (`list` and `revoke`: for the set of sessions; `sweep` and `revoke_all`: for
//! each session). The rules that a step applies are those of `session`.

#[cfg(feature = "lmdb")]
pub(crate) mod lmdb;
pub(crate) mod memory;
#[cfg(feature = "redis")]
pub(crate) mod redis;
#[cfg(any(feature = "lmdb", feature = "redis"))]
pub(crate) mod registry;

use crate::{
    error::Result,
    os::clock::Clock,
    session::{
        alias::{Alias, Grace},
        header::{Meta, StoredEntry, StoredRecord},
        key::{LookupKey, PrincipalKey},
        policy::{Policy, StepTime},
        write::Write,
    },
    stats::{Counters, EngineUsage},
};

/// What a step needs to know of its store.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub clock: Clock<'a>,
    pub policy: &'a Policy,
    /// Where the engine counts what only it sees: sessions cleared because expired, ended by a
    /// limit.
    pub counters: &'a Counters,
}

impl Context<'_> {
    /// The present time. To be called under the locks of the step.
    #[inline]
    pub(crate) fn step_time(&self) -> StepTime {
        self.policy.step_time(self.clock.now_ms())
    }
}

/// What `Engine::read` lends.
pub(crate) struct Found<'a> {
    pub record: StoredRecord<'a>,
    /// It expires with the key that was given, if that is earlier than the session's own deadline.
    pub meta: Meta,
    /// The aliases that lead from the given key to the session; empty if the key is the session's
    /// own.
    pub alias_chain: &'a [Alias],
}

/// Which per-session calls may block on another process, a disk or a network. The others take
/// microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocking {
    /// `get`, `read`, `touch`, `touch_ref` and `reference`, and also `stats`.
    pub reads: bool,
    /// `create`, `put`, `put_if`, `renew`, `delete` and `delete_ref`.
    pub writes: bool,
}

pub(crate) type Reader<'a> = &'a mut dyn FnMut(Found) -> Result<()>;

pub(crate) trait Engine: Send + Sync {
    /// The first part of every step: the clock, policy and counters of the store. `FORKED` in a
    /// forked child that cannot use the engine. Checks for a fork before it takes any lock.
    fn enter(&self) -> Result<Context<'_>>;

    /// Must not block itself.
    fn may_block(&self) -> Blocking;

    /// This engine for a forked child, sharing nothing with the parent's but the stored sessions;
    /// `None` if it cannot be used there.
    fn reopen_after_fork(&self) -> Option<Box<dyn Engine>>;

    /// Inserts a session. `EXISTS` if its key is taken; `FULL` at a limit, after removing expired
    /// sessions. Ends the least recently used session of a principal that has too many.
    fn create(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta>;

    /// Lends a live session to `reader`, and slides it unless `peek` or the reader fails. Counts
    /// hits and misses.
    fn read(&self, cx: &Context, key: &LookupKey, peek: bool, reader: Reader) -> Result<()>;

    /// Slides a live session unless `peek`. An old id in its grace time is `NOT_FOUND`.
    fn touch(&self, cx: &Context, key: &LookupKey, peek: bool) -> Result<Meta>;

    /// Replaces the payload of a live session; never creates one. `CONFLICT` if it has another
    /// version than `write` asks for.
    fn put(&self, cx: &Context, key: &LookupKey, write: &Write) -> Result<Meta>;

    /// Moves a live session to a new key. The old key ends, or reads the session during the grace
    /// time, which `Grace::alias` refuses at a login. If it fails, the session keeps its old key.
    fn renew(&self, cx: &Context, old: &LookupKey, new: &LookupKey, write: &Write, grace: &Grace) -> Result<Meta>;

    /// Ends a live session; with a principal, only one of that principal, otherwise `NOT_FOUND`.
    fn delete(&self, cx: &Context, key: &LookupKey, principal: Option<PrincipalKey>) -> Result<()>;

    /// The key under which the session that this key reads is stored: another one during a grace
    /// time.
    fn resolve(&self, cx: &Context, key: &LookupKey) -> Result<LookupKey>;

    /// Removes up to `max` expired sessions. Fewer than `max`: none is left.
    fn sweep(&self, cx: &Context, max: u64) -> Result<u64>;

    fn list(&self, cx: &Context, principal: PrincipalKey) -> Result<Vec<StoredEntry>>;

    /// Ends the sessions of a principal except the one that `except` reads, and returns how many.
    fn revoke(&self, cx: &Context, principal: PrincipalKey, except: Option<&LookupKey>) -> Result<u64>;

    /// Ends all sessions that were created before the call, in bounded steps, and returns how many.
    /// Also those that are renewed meanwhile. Counts them.
    fn revoke_all(&self, cx: &Context) -> Result<u64>;

    fn usage(&self, cx: &Context) -> Result<EngineUsage>;

    /// A test has moved the clock: other processes may have to know.
    fn clock_moved(&self) -> Result<()> {
        Ok(())
    }

    /// A timeout became shorter: sessions may expire earlier than the engine's index says.
    fn timeouts_shortened(&self) -> Result<()>;

    /// Inconsistencies of the engine's data, a line each. `UNSUPPORTED` where only this process can
    /// write them.
    fn check(&self) -> Result<Vec<String>>;
}
