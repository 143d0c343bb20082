//! What was called, when, and what it answered: the material of the checker. Times are milliseconds
//! since the store was opened, ids and payloads are small numbers. It knows neither the store nor
//! the rules.

use crate::common::PlainMeta;
use std::fmt;

/// Names a session id: the number under which it was recorded.
pub type Id = usize;

/// In place of an id: a session that was shown by a reference whose id is not known.
pub const UNKNOWN: Id = Id::MAX;

/// In place of an answer's time: the call had not returned when the history ends.
pub const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Keep,
    Clear,
    Set(u8),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Opts {
    pub timeout: i64,
    pub idle: i64,
    pub who: Who,
    pub grace: i64,
}

pub const NO_OPTS: Opts = Opts { timeout: 0, idle: 0, who: Who::Keep, grace: 0 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create { value: u32, opts: Opts },
    Get { id: Id },
    Peek { id: Id },
    Put { id: Id, version: Option<u64>, value: u32, opts: Opts },
    Touch { id: Id },
    Renew { id: Id, value: Option<u32>, opts: Opts },
    Delete { id: Id },
    DeleteRef { id: Id },
    Reference { id: Id },
    Revoke { who: u8, except: Option<Id> },
    List { who: u8 },
    Advance { ms: i64 },
    Sweep { max: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    NotFound,
    Conflict,
    /// `delete`, `sweep` and `advance_clock` say no more than this.
    Done,
    Made(Id, PlainMeta),
    Wrote(PlainMeta),
    Read(u32, PlainMeta),
    Refers(Id),
    Revoked(u64),
    Listed(Vec<Shown>),
    /// Nothing that the contract knows.
    Odd(String),
}

/// A session as `list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub id: Id,
    pub len: u64,
    pub meta: PlainMeta,
}

/// One call: `call` and `ret` come from one counter that all threads share, so that `a.ret <
/// b.call` means that `a` had returned before `b` was called.
#[derive(Clone, Debug)]
pub struct Op {
    pub thread: usize,
    pub call: u64,
    pub ret: u64,
    pub what: Call,
    pub answer: Answer,
}

/// The bytes of a payload: no two values have the same ones, and none is a mixture of two others.
pub fn payload(value: u32) -> Vec<u8> {
    value.to_le_bytes().repeat(payload_len(value) / 4)
}

/// All size classes, so that some writes stay in their place and others move.
pub fn payload_len(value: u32) -> usize {
    [4, 8, 64, 400, 5000][value as usize % 5]
}

/// The value of a payload; nothing if it is torn.
pub fn value_of(bytes: &[u8]) -> Option<u32> {
    let value = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    (bytes == payload(value)).then_some(value)
}

impl Op {
    /// The ids that this call was given or gave.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        use Call::*;
        let given = match self.what {
            Get { id } | Peek { id } | Touch { id } | Delete { id } | DeleteRef { id } | Reference { id } => Some(id),
            Put { id, .. } | Renew { id, .. } => Some(id),
            Revoke { except, .. } => except,
            Create { .. } | List { .. } | Advance { .. } | Sweep { .. } => None,
        };
        let gave = match &self.answer {
            Answer::Made(id, _) | Answer::Refers(id) => Some(*id),
            _ => None,
        };
        given.into_iter().chain(gave)
    }

    /// Whom it lists or revokes.
    pub fn principal(&self) -> Option<u8> {
        match self.what {
            Call::Revoke { who, .. } | Call::List { who } => Some(who),
            _ => None,
        }
    }

    /// Whether it concerns a principal or all, rather than sessions that it names.
    pub fn is_wide(&self) -> bool {
        matches!(self.what, Call::Revoke { .. } | Call::List { .. } | Call::Advance { .. })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ret = if self.ret == NEVER { "never".to_owned() } else { self.ret.to_string() };
        write!(f, "[{:>4} to {ret:>5}] thread {}: {:?}  =>  {}", self.call, self.thread, self.what, self.answer)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Made(id, meta) => write!(f, "made {id}, {}", Times(meta)),
            Answer::Wrote(meta) => write!(f, "ok, {}", Times(meta)),
            Answer::Read(value, meta) => write!(f, "value {value}, {}", Times(meta)),
            Answer::Listed(shown) => {
                write!(f, "listed {}", shown.len())?;
                shown.iter().try_for_each(|s| write!(f, " ({} of {} bytes, {})", s.id as isize, s.len, Times(&s.meta)))
            }
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Debug for Opts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        for (name, value) in [("timeout", self.timeout), ("idle", self.idle), ("grace", self.grace)] {
            if value != 0 {
                parts.push(format!("{name} {value}"));
            }
        }
        if self.who != Who::Keep {
            parts.push(format!("{:?}", self.who));
        }
        write!(f, "({})", parts.join(", "))
    }
}

struct Times<'a>(&'a PlainMeta);

impl fmt::Display for Times<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlainMeta { version, created_ms, last_seen_ms, expires_ms, .. } = self.0;
        write!(f, "version {version}, created {created_ms}, seen {last_seen_ms}, expires {expires_ms}")?;
        if let Some(authenticated_ms) = self.0.authenticated_ms {
            write!(f, ", authenticated {authenticated_ms}")?;
        }
        Ok(())
    }
}
