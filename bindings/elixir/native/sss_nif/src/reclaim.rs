//! Closes stores whose last reference the garbage collector has freed. It frees them on a normal
//! scheduler, where millions of sessions cannot be wiped and no file can be flushed, so a thread of
//! this library does that.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
};

use sss::{Error, ErrorKind, Store};

/// A queue to the thread that closes the stores sent to it. It is started on first use and never
/// ends.
pub fn queue() -> Result<Sender<Store>, Error> {
    static QUEUE: Mutex<Option<Sender<Store>>> = Mutex::new(None);
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(queue) = &*queue {
        return Ok(queue.clone());
    }
    let (sender, receiver) = mpsc::channel();
    let close_all = move || receiver.into_iter().for_each(drop);
    match thread::Builder::new().name("sss-reclaim".into()).spawn(close_all) {
        Ok(_) => Ok(queue.insert(sender).clone()),
        Err(error) => Err(Error::new(ErrorKind::NoMem, format!("cannot start the thread that closes stores: {error}"))),
    }
}
