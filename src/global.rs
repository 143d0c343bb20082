//! The process-wide store: opened by `open_global`, or as `memory:` by whoever uses it first.

use once_cell::sync::OnceCell;

use crate::{
    error::{Error, ErrorKind, Result},
    fork::PerProcess,
    store::Store,
};

struct Global {
    url: String,
    store: Store,
}

static GLOBAL: PerProcess<OnceCell<Global>> = PerProcess::new();

/// Opens the process-wide store. The same URL again is fine; another one is [`ErrorKind::Exists`], also if the store was
/// opened as `memory:` by its first use.
///
/// In a forked child the store is the parent's and not usable ([`ErrorKind::Forked`]) until the child calls this itself.
pub fn open_global(url: &str) -> Result<()> {
    if opened(url)?.url == url {
        Ok(())
    } else {
        Err(Error::fixed(ErrorKind::Exists, "the process-wide store is already open with another URL"))
    }
}

/// The process-wide store; opens it as `memory:` if nobody has.
pub fn global() -> Result<Store> {
    global_store().cloned()
}

pub(crate) fn global_store() -> Result<&'static Store> {
    if let Some(global) = GLOBAL.get().get() {
        return Ok(&global.store);
    }
    if GLOBAL.inherited().any(|of_ancestor| of_ancestor.get().is_some()) {
        return Err(Error::fixed(
            ErrorKind::Forked,
            "the process-wide store was opened before fork; open it in the child with open_global",
        ));
    }
    Ok(&opened("memory:")?.store)
}

/// This process's own, opened with `url` if it was not open.
fn opened(url: &str) -> Result<&'static Global> {
    GLOBAL.get().get_or_try_init(|| Ok(Global { url: url.to_owned(), store: Store::open(url)? }))
}
