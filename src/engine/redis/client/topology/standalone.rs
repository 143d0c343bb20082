//! One server.

use std::{sync::Arc, time::Instant};

use super::{Retry, Topology};
use crate::{
    engine::redis::client::{address::Address, error::Failure, pool::Pool},
    error::Result,
};

pub(in crate::engine::redis::client) struct Standalone(pub Arc<Pool>);

impl Topology for Standalone {
    fn pool_for(&self, _: &[u8], _: Instant) -> Result<Arc<Pool>> {
        Ok(Arc::clone(&self.0))
    }

    fn pool_at(&self, _: &Address) -> Arc<Pool> {
        Arc::clone(&self.0)
    }

    fn all_pools(&self, _: Instant) -> Result<Vec<Arc<Pool>>> {
        Ok(vec![Arc::clone(&self.0)])
    }

    fn retry(&self, _: &[u8], _: &Failure, _: Instant) -> Option<Retry> {
        None
    }
}
