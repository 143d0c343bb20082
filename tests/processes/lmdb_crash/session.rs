//! What a writer does to its sessions, told in lines to its parent, and what both know of them. A
//! writer says what it is about to do, does it, and says what came: so whatever it was at when it
//! died, the parent knows both the state before and the state after.

use std::collections::BTreeMap;

use sss::{Access, ErrorKind, Result, Store};

use crate::common::{Rng, of};

/// A payload, by what makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    pub seed: u64,
    pub len: usize,
}

/// What a session holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub version: u64,
    pub text: Text,
    pub principal: u8,
}

/// By id.
pub type Sessions = BTreeMap<String, Held>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    Create(Text, u8),
    Get(String),
    Put(String, Text),
    PutIf(String, Text),
    Renew(String, Option<Text>),
    Delete(String),
    DeleteRef(String),
    TouchRef(String),
    Revoke(u8),
}

/// What came of it: the id and the version of the session, where it has one.
pub type Done = (String, u64);

impl Text {
    pub fn bytes(&self) -> Vec<u8> {
        let mut rng = Rng(self.seed);
        let mut bytes: Vec<u8> = (0..self.len.div_ceil(8)).flat_map(|_| rng.next().to_le_bytes()).collect();
        bytes.truncate(self.len);
        bytes
    }

    fn any(rng: &mut Rng) -> Text {
        let len = rng.pick(&[1, 10, 10, 100, 1000, 3000, 10_000]);
        Text { seed: rng.next(), len }
    }
}

/// The bytes that name a writer's sessions: each writer has two principals, one of which it
/// revokes.
pub fn principal(writer: usize, principal: u8) -> Vec<u8> {
    format!("writer {writer}, principal {principal}").into_bytes()
}

impl Doing {
    pub fn any(rng: &mut Rng, sessions: &Sessions) -> Doing {
        const FEW: usize = 10;
        const MANY: usize = 60;
        let one = |rng: &mut Rng| sessions.keys().nth(rng.below(sessions.len())).unwrap().clone();
        let create = |rng: &mut Rng| Doing::Create(Text::any(rng), rng.below(2) as u8);
        if sessions.len() < FEW {
            return create(rng);
        }
        match rng.below(100) {
            0..20 if sessions.len() < MANY => create(rng),
            20..35 => Doing::Get(one(rng)),
            35..50 => Doing::Put(one(rng), Text::any(rng)),
            50..60 => Doing::PutIf(one(rng), Text::any(rng)),
            60..70 => Doing::Renew(one(rng), None),
            70..80 => Doing::Renew(one(rng), Some(Text::any(rng))),
            80 => Doing::Revoke(0),
            81..86 => Doing::TouchRef(one(rng)),
            86..93 => Doing::DeleteRef(one(rng)),
            _ => Doing::Delete(one(rng)),
        }
    }

    pub fn is_write(&self) -> bool {
        !matches!(self, Doing::Get(_) | Doing::TouchRef(_))
    }

    pub fn run(&self, store: &Store, writer: usize, sessions: &Sessions) -> Result<Done> {
        let plain = crate::common::PLAIN;
        Ok(match self {
            Doing::Create(text, whose) => {
                let (sid, meta) = store.create(&text.bytes(), &of(&principal(writer, *whose)))?;
                (sid.as_str().to_owned(), meta.version())
            }
            Doing::Get(sid) => {
                let (payload, meta) = store.get(sid, Access::Slide)?;
                let held = &sessions[sid];
                assert!(payload == held.text.bytes() && meta.version() == held.version, "{held:?} read as {meta:?}");
                (sid.clone(), meta.version())
            }
            Doing::Put(sid, text) => (sid.clone(), store.put(sid, &text.bytes(), &plain)?.version()),
            Doing::PutIf(sid, text) => {
                (sid.clone(), store.put_if(sid, sessions[sid].version, &text.bytes(), &plain)?.version())
            }
            Doing::Renew(sid, text) => {
                let text = text.map(|text| text.bytes());
                let (sid, meta) = store.renew(sid, text.as_deref(), &plain)?;
                (sid.as_str().to_owned(), meta.version())
            }
            Doing::Delete(sid) => store.delete(sid).map(|()| (sid.clone(), 0))?,
            Doing::DeleteRef(sid) => {
                let owner = principal(writer, sessions[sid].principal);
                store.delete_ref(&store.reference(sid)?, Some(&owner)).map(|()| (sid.clone(), 0))?
            }
            Doing::TouchRef(sid) => (sid.clone(), store.touch_ref(&store.reference(sid)?, Access::Slide)?.version()),
            Doing::Revoke(whose) => ("-".to_owned(), store.revoke(&principal(writer, *whose), None)?),
        })
    }

    /// What holds when it is done. Ids that are dead from here on are added to `dead`.
    pub fn apply(&self, done: &Done, sessions: &mut Sessions, dead: &mut Vec<String>) {
        let (sid, version) = done.clone();
        match self {
            Doing::Create(text, principal) => {
                sessions.insert(sid, Held { version, text: *text, principal: *principal });
            }
            Doing::Get(_) | Doing::TouchRef(_) => {}
            Doing::Put(_, text) | Doing::PutIf(_, text) => {
                let held = sessions.get_mut(&sid).unwrap();
                (held.version, held.text) = (version, *text);
            }
            Doing::Renew(old, text) => {
                let held = sessions.remove(old).unwrap();
                dead.push(old.clone());
                sessions.insert(sid, Held { version, text: text.unwrap_or(held.text), ..held });
            }
            Doing::Delete(sid) | Doing::DeleteRef(sid) => {
                sessions.remove(sid);
                dead.push(sid.clone());
            }
            Doing::Revoke(principal) => {
                dead.extend(sessions.extract_if(.., |_, held| held.principal == *principal).map(|(sid, _)| sid));
            }
        }
    }

    pub fn to_line(&self) -> String {
        let text = |text: &Text| format!("{} {}", text.seed, text.len);
        match self {
            Doing::Create(payload, principal) => format!("create {} {principal}", text(payload)),
            Doing::Get(sid) => format!("get {sid}"),
            Doing::Put(sid, payload) => format!("put {sid} {}", text(payload)),
            Doing::PutIf(sid, payload) => format!("put_if {sid} {}", text(payload)),
            Doing::Renew(sid, None) => format!("renew {sid}"),
            Doing::Renew(sid, Some(payload)) => format!("renew_with {sid} {}", text(payload)),
            Doing::Delete(sid) => format!("delete {sid}"),
            Doing::DeleteRef(sid) => format!("delete_ref {sid}"),
            Doing::TouchRef(sid) => format!("touch_ref {sid}"),
            Doing::Revoke(principal) => format!("revoke {principal}"),
        }
    }

    pub fn parse(words: &[&str]) -> Doing {
        let text = |seed: &str, len: &str| Text { seed: seed.parse().unwrap(), len: len.parse().unwrap() };
        match *words {
            ["create", seed, len, principal] => Doing::Create(text(seed, len), principal.parse().unwrap()),
            ["get", sid] => Doing::Get(sid.to_owned()),
            ["put", sid, seed, len] => Doing::Put(sid.to_owned(), text(seed, len)),
            ["put_if", sid, seed, len] => Doing::PutIf(sid.to_owned(), text(seed, len)),
            ["renew", sid] => Doing::Renew(sid.to_owned(), None),
            ["renew_with", sid, seed, len] => Doing::Renew(sid.to_owned(), Some(text(seed, len))),
            ["delete", sid] => Doing::Delete(sid.to_owned()),
            ["delete_ref", sid] => Doing::DeleteRef(sid.to_owned()),
            ["touch_ref", sid] => Doing::TouchRef(sid.to_owned()),
            ["revoke", principal] => Doing::Revoke(principal.parse().unwrap()),
            _ => panic!("not a line of a writer: {words:?}"),
        }
    }
}

/// A session as a new writer is told of it.
pub fn to_line(sid: &str, held: &Held) -> String {
    format!("{sid} {} {} {} {}", held.version, held.text.seed, held.text.len, held.principal)
}

pub fn parse(line: &str) -> (String, Held) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [sid, version, seed, len, principal] = words[..] else { panic!("not a session: {line}") };
    let text = Text { seed: seed.parse().unwrap(), len: len.parse().unwrap() };
    (sid.to_owned(), Held { version: version.parse().unwrap(), text, principal: principal.parse().unwrap() })
}

/// What the store says of an id.
pub fn look(store: &Store, sid: &str) -> Option<(u64, Vec<u8>)> {
    match store.get(sid, Access::Peek) {
        Ok((payload, meta)) => Some((meta.version(), payload)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("a session cannot be read: {error}"),
    }
}

/// Whether the store says of an id what is known of it.
pub fn is_as(found: &Option<(u64, Vec<u8>)>, held: Option<&Held>) -> bool {
    match (found, held) {
        (None, None) => true,
        (Some((version, payload)), Some(held)) => *version == held.version && *payload == held.text.bytes(),
        _ => false,
    }
}
