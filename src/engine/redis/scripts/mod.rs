//! The scripts that run in the server: the parts of a step that must be atomic there. Rules that
//! they share are in common.lua and principal_index.lua, which come first in their text.

use super::client::Script;

/// For scripts that end sessions or complete a step: a full server must not refuse their small
/// writes. The server checks the reasons to refuse a write before such a script starts.
macro_rules! allow_oom {
    () => {
        "#!lua flags=allow-oom\n"
    };
}

/// Defines scripts, each of the texts of several files in a row.
macro_rules! scripts {
    ($($name:ident = $($flag:ident!)? $($file:literal)+;)*) => {
        $(pub(super) static $name: Script = Script::new(concat!($($flag!(),)? $(include_str!($file), "\n"),+));)*
    };
}

scripts! {
    READ_SESSION = "common.lua" "read_session.lua";
    UNDO_TOUCH = "common.lua" "undo_touch.lua";
    CREATE_SESSION = "common.lua" "principal_index.lua" "create_session.lua";
    REPLACE_SESSION = "common.lua" "principal_index.lua" "replace_session.lua";
    RENAME_SESSION = "common.lua" "principal_index.lua" "rename_session.lua";
    UNDO_RENAME = allow_oom! "common.lua" "principal_index.lua" "undo_rename.lua";
    WRITE_AGAIN = "common.lua" "write_again.lua";
    DELETE_SESSION = allow_oom! "common.lua" "delete_session.lua";
    LIST_SESSIONS = "common.lua" "principal_index.lua" "list_sessions.lua";
    REVOKE_SESSIONS = allow_oom! "common.lua" "principal_index.lua" "revoke_sessions.lua";
    END_SESSION = allow_oom! "common.lua" "end_session.lua";
    MARK_REVOCATION = allow_oom! "mark_revocation.lua";
    ADVANCE_CLOCK = "advance_clock.lua";
    // In a Cluster, where two sessions, or a session and its principal's index, may be on different
    // servers.
    INSERT_MEMBER = "common.lua" "principal_index.lua" "insert_member.lua";
    LOCK_INDEX = allow_oom! "common.lua" "lock_index.lua";
    PREPARE_ARRIVAL = "common.lua" "prepare_arrival.lua";
    DETACH_SESSION = allow_oom! "common.lua" "detach_session.lua";
    PUBLISH_ARRIVAL = allow_oom! "common.lua" "publish_arrival.lua";
    SETTLE_ARRIVAL = allow_oom! "common.lua" "settle_arrival.lua";
    FINISH_DEPARTURE = allow_oom! "common.lua" "finish_departure.lua";
    RESTORE_DEPARTED = allow_oom! "common.lua" "restore_departed.lua";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::redis::{
            commands::{ALIAS, LEAVING},
            keys::SPELLED_KEY,
            old_keys,
            record_prefix::PREFIX,
        },
        session::{alias::MAX_ALIASES, codec, header::MAX_CLOCK_LEAD_MS},
    };

    #[test]
    fn scripts_agree_with_the_record_format() {
        for line in [
            format!("local PREFIX = {PREFIX}\n"),
            format!("local HEADER = {}\n", codec::HEADER),
            format!("local CREATED = {}\n", codec::CREATED),
            format!("local LAST_SEEN = {}\n", codec::LAST_SEEN),
            format!("local IDLE = {}\n", codec::IDLE),
            format!("local PRINCIPAL = {}\n", codec::PRINCIPAL),
            format!("local AUTHENTICATED = {}\n", codec::AUTHENTICATED),
            format!("local HAS_PRINCIPAL, HAS_COUNTED_FROM = {}, {}\n", codec::HAS_PRINCIPAL, codec::HAS_COUNTED_FROM),
            format!("local MAX_CLOCK_LEAD_MS = {MAX_CLOCK_LEAD_MS}\n"),
            format!("local ALIAS, LEAVING, ARRIVING, REVOKED = {ALIAS}, {LEAVING}, "),
            format!("local OLD_KEYS = {}\n", old_keys::FLAG),
            format!("local OLD_KEY = {}\n", old_keys::ENTRY),
            format!("local MAX_ALIASES = {MAX_ALIASES}\n"),
            format!("local SPELLED_KEY = {SPELLED_KEY}\n"),
        ] {
            assert!(CREATE_SESSION.source().contains(&line), "{line}");
        }
    }
}
