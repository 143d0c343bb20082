//! The wire: Redis's protocol RESP2, as much of it as is needed. A reply is read as it comes and costs no more memory than
//! has come; what is not a reply is an error, after which the connection is of no use any more.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>
//!
//! Why not the `redis` crate (1.8): its connection's timeouts are for one read or write each, so a server whose bytes come one
//! by one holds a call up without end; and its parser keeps to itself what came behind a reply, so nobody could tell that a
//! reply is left over which would be taken for the next one's. What would remain of it are these lines, and some 40 crates.

use std::{
    io::{self, Read},
    ops::Range,
};

/// More than any record, and than any list of a principal's sessions.
const LONGEST: usize = 512 << 20;
/// What nobody nests deeper.
const DEEPEST: usize = 4;
const CHUNK: usize = 16 << 10;
/// A larger buffer is not kept for the next reply.
const KEPT: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    /// A simple or a bulk string.
    Bytes(Vec<u8>),
    Array(Vec<Reply>),
    /// What the server refuses, in its words.
    Error(String),
}

impl Reply {
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(answer) => Some(answer),
            _ => None,
        }
    }

    pub(super) fn array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// An argument as it goes over the wire.
pub(super) fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Appends a command.
pub(super) fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    header(out, b'*', parts.len());
    for part in parts {
        header(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Nearly all numbers are short, and there are many of them.
fn header(out: &mut Vec<u8>, sign: u8, number: usize) {
    let digit = |number: usize| b'0' + (number % 10) as u8;
    match number {
        0..10 => out.extend_from_slice(&[sign, digit(number), b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[sign, digit(number / 10), digit(number), b'\r', b'\n']),
        _ => out.extend_from_slice(format!("{}{number}\r\n", sign as char).as_bytes()),
    }
}

/// What has been read and not been used yet: a part of a buffer that is kept from one reply to the next.
#[derive(Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    pub(super) fn reply(&mut self, from: &mut impl Read) -> io::Result<Reply> {
        let reply = self.nested(from, 0)?;
        if self.is_empty() {
            (self.at, self.end) = (0, 0);
            self.buffer.truncate(KEPT);
            self.buffer.shrink_to(KEPT);
        }
        Ok(reply)
    }

    fn nested(&mut self, from: &mut impl Read, depth: usize) -> io::Result<Reply> {
        let line = self.line(from)?;
        let (&sign, rest) = self.buffer[line].split_first().ok_or_else(garbage)?;
        let number = || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(garbage);
        let length = || match number()? {
            -1 => Ok(None),
            length => usize::try_from(length).ok().filter(|&length| length <= LONGEST).map(Some).ok_or_else(garbage),
        };
        match sign {
            b'+' => Ok(Reply::Bytes(rest.to_vec())),
            b'-' => Ok(Reply::Error(String::from_utf8_lossy(rest).into_owned())),
            b':' => Ok(Reply::Int(number()?)),
            b'$' => match length()? {
                None => Ok(Reply::Nil),
                Some(length) => Ok(Reply::Bytes(self.bulk(from, length)?)),
            },
            b'*' if depth < DEEPEST => match length()? {
                None => Ok(Reply::Nil),
                Some(length) => {
                    let mut items = Vec::new();
                    for _ in 0..length {
                        items.push(self.nested(from, depth + 1)?);
                    }
                    Ok(Reply::Array(items))
                }
            },
            _ => Err(garbage()),
        }
    }

    /// Where a line is, without its end.
    fn line(&mut self, from: &mut impl Read) -> io::Result<Range<usize>> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.at..self.end];
            if let Some(end) = unread[looked..].iter().position(|&byte| byte == b'\n').map(|end| looked + end) {
                let len = unread[..end].strip_suffix(b"\r").ok_or_else(garbage)?.len();
                let line = self.at..self.at + len;
                self.at += end + 1;
                return Ok(line);
            }
            looked = unread.len();
            if looked > CHUNK {
                return Err(garbage());
            }
            self.fill(from)?;
        }
    }

    fn bulk(&mut self, from: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
        while self.end - self.at < length + 2 {
            self.fill(from)?;
        }
        let (bulk, rest) = self.buffer[self.at..self.end].split_at(length);
        if !rest.starts_with(b"\r\n") {
            return Err(garbage());
        }
        self.at += length + 2;
        Ok(bulk.to_vec())
    }

    fn fill(&mut self, from: &mut impl Read) -> io::Result<()> {
        if self.end == self.buffer.len() {
            // As much again as there is: a large reply takes few turns, and a wrong length no memory.
            let more = CHUNK.max(self.end);
            self.buffer.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.buffer.resize(self.end + more, 0);
        }
        match from.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => {
                self.end += more;
                Ok(())
            }
        }
    }
}

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came is no reply of a Redis server")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one at a time.
    struct Drops<'a>(&'a [u8]);

    impl Read for Drops<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((&first, rest)) = self.0.split_first() else { return Ok(0) };
            (out[0], self.0) = (first, rest);
            Ok(1)
        }
    }

    fn read(bytes: &[u8]) -> io::Result<Reply> {
        let mut all = bytes;
        let reply = Inbox::default().reply(&mut all);
        let dropwise = Inbox::default().reply(&mut Drops(bytes));
        assert_eq!(format!("{reply:?}"), format!("{dropwise:?}"));
        reply
    }

    #[test]
    fn a_reply_is_the_same_however_it_is_cut_into_pieces() {
        let array = read(b"*5\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n+OK\r\n*1\r\n$0\r\n\r\n").unwrap();
        let bytes = |text: &str| Reply::Bytes(text.into());
        let inner = Reply::Array(vec![bytes("")]);
        assert_eq!(array, Reply::Array(vec![Reply::Int(-7), bytes("a\r\nbc"), Reply::Nil, bytes("OK"), inner]));
        assert_eq!(read(b"-ERR no\r\n").unwrap(), Reply::Error("ERR no".into()));
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_takes_no_memory() {
        for bad in [
            &b"hello\r\n"[..],
            b"$5\r\nabc\r\n",
            b"$3\r\nabcd\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*536870912\r\n:1\r\n",
            b":x\r\n",
            b"+OK\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            b"",
            b"\r\n",
        ] {
            assert!(read(bad).is_err(), "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn a_command_says_how_long_its_parts_are() {
        for (len, header) in [(0, "$0"), (9, "$9"), (10, "$10"), (99, "$99"), (100, "$100"), (70_000, "$70000")] {
            let (part, mut out) = (vec![b'x'; len], Vec::new());
            command(&mut out, &[b"SET", &part]);
            let expected = format!("*2\r\n$3\r\nSET\r\n{header}\r\n{}\r\n", "x".repeat(len));
            assert!(out == expected.as_bytes(), "{len}");
        }
    }

    #[test]
    fn two_replies_that_come_together_are_two() {
        let (mut inbox, mut from) = (Inbox::default(), &b":1\r\n:2\r\n"[..]);
        assert_eq!(inbox.reply(&mut from).unwrap(), Reply::Int(1));
        assert!(!inbox.is_empty());
        assert_eq!(inbox.reply(&mut from).unwrap(), Reply::Int(2));
        assert!(inbox.is_empty());
    }
}
