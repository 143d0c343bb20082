//! The C ABI: the only place with C types and raw pointers. Each exported function checks its
//! arguments, resolves the handle and calls [`Store`](crate::Store); `include/sss.h` is generated
//! from here by cbindgen, so the comments on the functions are written for a C programmer.
//!
//! Every body is `guard(|| …)`: no panic crosses the boundary, and a failure leaves its line for
//! `sss_last_error`.
#![allow(unsafe_code)]
// What a C caller has to promise is said once, in the conventions at the top of the header.
#![allow(clippy::missing_safety_doc)]

mod args;
mod guard;
mod handle;
#[cfg(test)]
mod tests;

// In the order of the header.
mod types;

mod store;

mod session;

mod principal;

mod diagnostics;

pub use self::{diagnostics::*, principal::*, session::*, store::*, types::*};
