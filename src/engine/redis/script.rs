//! The scripts that run in the server: what must not be torn apart there, and nothing else. The rules that they share are
//! in common.lua, which stands before each of them.

use once_cell::race::OnceBox;

pub(super) struct Script {
    pub source: &'static str,
    digest: OnceBox<String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Script = Script {
            source: concat!(include_str!("common.lua"), "\n", include_str!($file)),
            digest: OnceBox::new(),
        };)*
        #[cfg(test)]
        pub(super) static ALL: &[&Script] = &[$(&$name),*];
    };
}

scripts! {
    READ = "read.lua";
    UNREAD = "unread.lua";
    CREATE = "create.lua";
    WRITE = "write.lua";
    DELETE = "delete.lua";
    BIND = "bind.lua";
}

impl Script {
    /// What a server that has seen it knows it by.
    pub(super) fn digest(&self) -> &str {
        self.digest.get_or_init(|| Box::new(sha1_smol::Sha1::from(self.source).digest().to_string()))
    }
}
