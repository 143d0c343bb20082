//! The scripts that run in the server: what must not be torn apart there, and nothing else. The rules that they share are
//! in common.lua and principal.lua, which stand before them.

use once_cell::race::OnceBox;

pub(super) struct Script {
    pub source: &'static str,
    digest: OnceBox<String>,
}

/// Each is made of files, one behind the other.
macro_rules! scripts {
    ($($name:ident = $($file:literal)+;)*) => {
        $(pub(super) static $name: Script = Script {
            source: concat!($(include_str!($file), "\n"),+),
            digest: OnceBox::new(),
        };)*
    };
}

scripts! {
    READ = "common.lua" "read.lua";
    UNREAD = "common.lua" "unread.lua";
    DELETE = "common.lua" "delete.lua";
    CREATE = "common.lua" "principal.lua" "create.lua";
    WRITE = "common.lua" "principal.lua" "write.lua";
    MOVE = "common.lua" "principal.lua" "move.lua";
    LIST = "common.lua" "principal.lua" "list.lua";
    REVOKE = "common.lua" "principal.lua" "revoke.lua";
    CLOCK = "clock.lua";
    // Where a session and its principal's list are on different servers.
    JOIN = "common.lua" "principal.lua" "join.lua";
    TAKE = "common.lua" "take.lua";
    END = "common.lua" "end.lua";
}

impl Script {
    /// What a server that has seen it knows it by.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| Box::new(sha1_smol::Sha1::from(self.source).digest().to_string()))
    }
}
