//! Where a server is reached.

use std::{fmt, path::PathBuf};

use crate::url::Host;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    Tcp(Host),
    Unix(PathBuf),
}

impl Address {
    /// A server as another one names it. A server that does not know its own name leaves it out.
    pub(super) fn from_peer(name: Option<&[u8]>, port: Option<i64>, peer: &Address) -> Option<Address> {
        let name = std::str::from_utf8(name.unwrap_or_default()).ok()?;
        let name = match (name, peer) {
            ("" | "?", Address::Tcp(host)) => &host.name,
            _ => name,
        };
        let port = u16::try_from(port?).ok().filter(|&port| port > 0)?;
        Some(Address::Tcp(Host { name: name.to_owned(), port }))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host) => host.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}
