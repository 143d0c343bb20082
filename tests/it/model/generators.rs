//! What a random history does next: ids, options and payloads, chosen so that every rule is often
//! at its edge. Knows the model's state and never the store's.

use super::{
    Pair,
    reference::{Id, Opts, Who},
};
use crate::common::{FOREVER, INHERIT};

const PRINCIPALS: [&str; 3] = ["alice", "bob", "a\0b"];
const LABELS: [&str; 4] = ["phone", "Firefox on Linux, 127.0.0.1, by password and passkey", "\0", LONGEST];
const LONGEST: &str = match std::str::from_utf8(&[b'l'; 255]) {
    Ok(label) => label,
    Err(_) => unreachable!(),
};
const TOO_LONG: &str = match std::str::from_utf8(&[b'l'; 256]) {
    Ok(label) => label,
    Err(_) => unreachable!(),
};

impl Pair {
    /// Mostly the id of a living session, sometimes an old one in its grace time, a recent one, any
    /// that was minted, or one that never was.
    pub fn id(&mut self) -> Id {
        let all = self.sids.len();
        match self.rng.below(20) {
            0 => self.rng.below(all),
            4..7 if !self.model.aliases.is_empty() => {
                let nth = self.rng.below(self.model.aliases.len());
                *self.model.aliases.keys().nth(nth).unwrap()
            }
            _ if self.model.living.is_empty() => all - 1,
            1..4 => all - 1 - self.rng.below(all.min(40)),
            _ => {
                let nth = self.rng.below(self.model.living.len());
                *self.model.living.keys().nth(nth).unwrap()
            }
        }
    }

    pub fn opts(&mut self, renew: bool) -> Opts {
        let rng = &mut self.rng;
        let mut timeout = |usual: usize| match rng.below(60) {
            0 | 1 => -1,
            2 => FOREVER,
            3 => FOREVER - 1,
            4 => 1,
            5..10 => 1 + rng.below(usual) as i64,
            10..14 => INHERIT,
            _ => 0,
        };
        let (timeout, idle) = (timeout(12_000), timeout(4_000));
        let who = match self.rng.below(24) {
            0 => Who::Clear,
            1 => Who::Set(""),
            2..12 => Who::Set(self.rng.pick(&PRINCIPALS)),
            _ => Who::Keep,
        };
        let grace = match self.rng.below(40) {
            0 => FOREVER,
            1 => 1,
            4..20 if renew => self.rng.below(5_000) as i64,
            _ => 0,
        };
        let label = match self.rng.below(60) {
            0 => Some(self.rng.pick(&LABELS)),
            1..4 if matches!(who, Who::Set(_)) => Some(""),
            4 if matches!(who, Who::Set(_)) => Some(TOO_LONG),
            5..30 if matches!(who, Who::Set(_)) => Some(self.rng.pick(&LABELS)),
            _ => None,
        };
        let reauthenticated = if renew { self.rng.one_in(6) } else { self.rng.one_in(80) };
        Opts { timeout, idle, who, label, grace, reauthenticated }
    }

    /// Too large only if nothing else is wrong: which of two mistakes is named first is not
    /// promised.
    pub fn payload(&mut self, opts: &Opts) -> Vec<u8> {
        let is_plain = opts.grace == 0 && opts.label.is_none() && !opts.reauthenticated;
        let sound = is_plain && !matches!(opts.who, Who::Clear | Who::Set(""));
        let longest = self.model.rules.max_payload;
        let len = match self.rng.below(20) {
            0 => 0,
            1 => longest,
            2 if sound => longest + 1,
            3..8 => 16,
            _ => self.rng.below(longest),
        };
        (0..len).map(|_| self.rng.next() as u8).collect()
    }

    pub fn principal(&mut self) -> &'static str {
        if self.rng.one_in(15) { self.rng.pick(&["", "nobody"]) } else { self.rng.pick(&PRINCIPALS) }
    }
}
