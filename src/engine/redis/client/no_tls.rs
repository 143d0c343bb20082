//! In place of tls.rs in a build without the feature `tls`: the options of TLS are refused.

use std::io;

use super::{
    address::Address,
    stream::{DeadlineStream, Stream},
};
use crate::{
    error::{Error, ErrorKind, Result},
    url::Tls,
};

#[derive(Clone)]
pub(super) enum TlsConfig {}

impl TlsConfig {
    pub(super) fn load(_: &Tls) -> Result<TlsConfig> {
        Err(Error::fixed(ErrorKind::Unsupported, "this build has no TLS (cargo feature 'tls')"))
    }

    pub(super) fn wrap(&self, _: DeadlineStream, _: &Address) -> io::Result<Box<dyn Stream>> {
        match *self {}
    }
}
