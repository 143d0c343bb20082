//! What a connection begins with: credentials, database, encryption, and what the server has to be.

use super::tls::TlsConfig;
use crate::{
    error::Result,
    url::{Password, RedisUrl, Servers},
};

#[derive(Clone)]
pub(super) struct ConnectOptions {
    pub user: Option<String>,
    pub password: Option<Password>,
    pub db: u32,
    pub tls: Option<TlsConfig>,
    /// False for a Sentinel, which does not tell the time.
    pub is_data_node: bool,
    /// Whether a server that is a replica is refused.
    pub must_be_master: bool,
}

impl ConnectOptions {
    /// For the servers that hold the data.
    pub(super) fn data_node(url: &RedisUrl) -> Result<ConnectOptions> {
        Ok(ConnectOptions {
            user: url.user.clone(),
            password: url.password.clone(),
            db: url.db,
            tls: url.tls.as_ref().map(TlsConfig::load).transpose()?,
            is_data_node: true,
            must_be_master: matches!(url.servers, Servers::Sentinel(..)),
        })
    }

    /// For the Sentinels, which have credentials of their own.
    pub(super) fn sentinel(url: &RedisUrl, data_node: &ConnectOptions) -> ConnectOptions {
        ConnectOptions {
            user: url.sentinel_user.clone(),
            password: url.sentinel_password.clone(),
            db: 0,
            tls: data_node.tls.clone(),
            is_data_node: false,
            must_be_master: false,
        }
    }
}
