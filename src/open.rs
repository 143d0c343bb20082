//! From a store URL to its engine and its keys: the one place that knows every engine, and which of
//! them this build has.

use crate::{
    crypto::{aead, keys::StoreKeys},
    engine::{Engine, memory::Memory},
    error::{Error, ErrorKind, Result},
    url::{EngineUrl, Url},
};

/// The parts of an open store.
pub(crate) struct Opened {
    pub engine: Box<dyn Engine>,
    pub keys: StoreKeys,
}

/// Opens the store, and creates it if it does not exist.
pub(crate) fn open(url: &Url) -> Result<Opened> {
    match &url.engine {
        EngineUrl::Memory(_) => {
            let overhead = if url.seals() { aead::OVERHEAD } else { 0 };
            let engine = Memory::new(&url.policy, url.manual_clock == Some(true), overhead)?;
            Ok(Opened { engine: Box::new(engine), keys: StoreKeys::for_process(url.seals())? })
        }
        #[cfg(feature = "lmdb")]
        EngineUrl::Lmdb(directory) => {
            let keyring = keyring(url)?;
            let (engine, salt) = crate::engine::lmdb::Lmdb::open(directory, url, !keyring.is_empty())?;
            let keys = StoreKeys::for_shared_store(&salt, url.seals().then_some(keyring));
            Ok(Opened { engine: Box::new(engine), keys })
        }
        #[cfg(feature = "redis")]
        EngineUrl::Redis(redis) => {
            let keyring = keyring(url)?;
            let (engine, salt) = crate::engine::redis::Redis::open(redis, url)?;
            let keys = StoreKeys::for_shared_store(&salt, url.seals().then_some(keyring));
            Ok(Opened { engine: Box::new(engine), keys })
        }
        #[cfg(not(all(feature = "lmdb", feature = "redis")))]
        _ => Err(Error::fixed(ErrorKind::Unsupported, "this build of the library does not have the URL's engine")),
    }
}

/// Opens a store that exists, with the settings that it has.
pub(crate) fn open_existing(url: &Url) -> Result<Opened> {
    match &url.engine {
        EngineUrl::Memory(_) => Err(Error::fixed(
            ErrorKind::Unsupported,
            "a memory: store lives in the process that opened it: no other process can reach it",
        )),
        #[cfg(feature = "lmdb")]
        EngineUrl::Lmdb(directory) => {
            let keyring = keyring(url)?;
            let (engine, salt, seals) = crate::engine::lmdb::Lmdb::open_existing(directory, url)?;
            Ok(Opened { engine: Box::new(engine), keys: StoreKeys::for_shared_store(&salt, seals.then_some(keyring)) })
        }
        // Opening changes nothing there.
        _ => open(url),
    }
}

#[cfg(any(feature = "lmdb", feature = "redis"))]
fn keyring(url: &Url) -> Result<crate::crypto::keyring::Keyring> {
    url.secret_file.as_deref().map_or(Ok(Default::default()), crate::crypto::secret_file::read)
}
