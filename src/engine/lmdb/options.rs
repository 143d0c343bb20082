//! The settings that a caller asks for when it opens a store.

use crate::{session::policy::PolicyOptions, url::Url};

/// The size of data.mdb unless `max_bytes` gives another one: 256 MiB.
pub(super) const DEFAULT_FILE_SIZE: u64 = 256 << 20;

#[derive(Clone)]
pub(super) struct OpenOptions {
    pub policy: PolicyOptions,
    pub manual_clock: Option<bool>,
    pub survives_power_cut: bool,
    pub seals: bool,
    pub has_secret: bool,
    /// Opens a store that exists with the settings of its last use, except for what was asked for.
    pub keeps_settings: bool,
}

impl OpenOptions {
    pub(super) fn new(url: &Url, has_secret: bool) -> OpenOptions {
        OpenOptions {
            policy: url.policy,
            manual_clock: url.manual_clock,
            survives_power_cut: url.survives_power_cut,
            seals: url.seals(),
            has_secret,
            keeps_settings: false,
        }
    }

    pub(super) fn policy(&self) -> PolicyOptions {
        PolicyOptions { max_bytes: self.policy.max_bytes.or(Some(DEFAULT_FILE_SIZE)), ..self.policy }
    }
}
