//! What a session is, without any storage: its id, the key that engines see, its record's header,
//! how a write changes it, and the rules about timeouts and limits. Every engine applies these
//! rules inside its own atomic step. Keeps no state and knows no engine.

pub(crate) mod alias;
#[cfg(any(feature = "lmdb", feature = "redis"))]
pub(crate) mod codec;
pub(crate) mod header;
pub(crate) mod id;
pub(crate) mod key;
pub(crate) mod label;
pub(crate) mod policy;
pub(crate) mod write;
