//! A server-side session store. The client holds an unguessable id of 128 characters; the session
//! stays in the store, where it can be read, updated, renewed, revoked and expired.
//!
//! ```
//! use sss::{Access, Options, Store};
//!
//! let store = Store::open("memory:?timeout=12h&idle_timeout=15m")?;
//! let (sid, _) = store.create(b"cart=3", &Options::default())?;
//!
//! // Login: a new id, the same session, now bound to a user.
//! let login = Options::new().principal("alice");
//! let (sid, meta) = store.renew(&sid, None, &login)?;
//! store.put_if(&sid, meta.version(), b"cart=4", &Options::default())?;
//!
//! let (payload, _) = store.get(&sid, Access::Slide)?;
//! assert_eq!(payload, b"cart=4");
//! assert_eq!(store.revoke(b"alice", None)?, 1);
//! assert!(store.get(&sid, Access::Slide).is_err());
//! # Ok::<(), sss::Error>(())
//! ```
//!
//! C (`include/sss.h`), Python and Elixir use the same [`Store`]. A call goes one way: caller, [`Store`] (the rules), engine
//! (the atomic step).

// The rules serve every engine: a build with fewer engines does not use all of them.
#![cfg_attr(not(all(feature = "lmdb", feature = "redis")), allow(dead_code, unused_imports))]

mod crypto;
mod engine;
mod error;
mod global;
mod open;
mod os;
mod session;
mod stats;
mod store;
mod sync;
mod url;

#[cfg(any(feature = "capi", test))]
pub mod capi;

pub use engine::Blocking;
pub use error::{Error, ErrorKind, Result};
pub use global::{global, open_global};
pub use session::{
    header::{Entry, Meta},
    id::{SID_LEN, Sid},
    key::Ref,
    policy::Timeout,
};
pub use stats::Stats;
pub use store::{Access, Options, Principal, Store};
#[doc(hidden)] // For the bindings of this repository.
pub use sync::sharded_lock::ShardedLock;

/// The snippets of these pages are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/rust.md")]
mod pages {}
