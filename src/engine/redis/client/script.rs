//! A Lua script as a client runs it: by its digest, which a server knows once it has seen the
//! source.

use once_cell::race::OnceBox;

pub(crate) struct Script {
    source: &'static str,
    digest: OnceBox<String>,
}

impl Script {
    pub(crate) const fn new(source: &'static str) -> Script {
        Script { source, digest: OnceBox::new() }
    }

    pub(crate) fn source(&self) -> &'static str {
        self.source
    }

    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| Box::new(sha1_smol::Sha1::from(self.source).digest().to_string()))
    }
}
