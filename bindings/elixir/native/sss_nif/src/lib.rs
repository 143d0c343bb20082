//! The functions of `SessionServerStore.Native`: decode arguments, call `sss::Store`, encode the
//! reply. No rule of the store is decided here.
//!
//! A NIF may keep a normal scheduler for about a millisecond. What may take longer runs on a dirty
//! scheduler, and what the garbage collector frees is closed on a thread of this library.

mod args;
mod atoms;
mod handle;
mod reclaim;
mod replies;
mod sessions;
mod stores;

rustler::init!("Elixir.SessionServerStore.Native");
