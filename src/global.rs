//! The process-wide store: opened by `open_global`, or as `memory:` by its first use.

use once_cell::sync::OnceCell;

use crate::{
    error::{Error, ErrorKind, Result},
    store::Store,
    sync::per_process::PerProcess,
};

struct Global {
    url: String,
    store: Store,
}

static GLOBAL: PerProcess<OnceCell<Global>> = PerProcess::new();

/// Opens the process-wide store. The same URL again is not an error; another one is
/// [`ErrorKind::Exists`], even if the store was opened as `memory:` by its first use.
///
/// In a forked child the process-wide store is the parent's if its engine can be used there.
/// Otherwise calls return [`ErrorKind::Forked`] until the child calls this function itself.
pub fn open_global(url: &str) -> Result<()> {
    if opened(url)?.url == url {
        Ok(())
    } else {
        Err(Error::fixed(ErrorKind::Exists, "the process-wide store is already open with another URL"))
    }
}

/// The process-wide store. Opens it as `memory:` if it is not open.
pub fn global() -> Result<Store> {
    global_store().cloned()
}

pub(crate) fn global_store() -> Result<&'static Store> {
    if let Some(global) = GLOBAL.get().get() {
        return Ok(&global.store);
    }
    let Some(of_parent) = GLOBAL.inherited().filter_map(OnceCell::get).last() else {
        return Ok(&opened("memory:")?.store);
    };
    let for_child = || {
        let store = of_parent.store.reopen_after_fork().ok_or_else(|| {
            Error::fixed(
                ErrorKind::Forked,
                "the process-wide store was opened before fork; open it in the child with open_global",
            )
        })?;
        Ok(Global { url: of_parent.url.clone(), store })
    };
    Ok(&GLOBAL.get().get_or_try_init(for_child)?.store)
}

/// This process's own, opened with `url` if it was not open.
fn opened(url: &str) -> Result<&'static Global> {
    GLOBAL.get().get_or_try_init(|| Ok(Global { url: url.to_owned(), store: Store::open(url)? }))
}
