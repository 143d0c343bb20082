//! The wire protocol RESP2, as much of it as is needed. A reply takes no more memory than has
//! arrived; anything that is not a reply is an error, after which the connection must be dropped.
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>
//!
//! Why not the `redis` crate (1.8): its Cluster client repeats a call after a timeout or a lost
//! connection whatever the command was, but `delete` and `revoke` must happen at most once; and it
//! has no deadline over all attempts of a call, only timeouts for single reads and writes. What it
//! could take over safely, this file and the building of commands, is small.

use std::{
    io::{self, Read},
    ops::Range,
};

/// More than any record, and than any list of a principal's sessions.
const MAX_LENGTH: usize = 512 << 20;
/// Deeper than any reply that is asked for.
const MAX_DEPTH: usize = 4;
const CHUNK: usize = 16 << 10;
/// A larger buffer is not kept for the next reply.
const KEPT_BUFFER: usize = 64 << 10;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Int(i64),
    /// A simple or a bulk string.
    Bytes(Vec<u8>),
    Array(Vec<Reply>),
    /// A refusal, in the server's words.
    Error(String),
}

impl Reply {
    pub(crate) fn int(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn into_bytes(self) -> Option<Vec<u8>> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(answer) => Some(answer),
            _ => None,
        }
    }

    pub(crate) fn array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// An argument in text form.
pub(crate) fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// Appends a command to the bytes to be sent.
pub(crate) fn write_command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    write_length(out, b'*', parts.len());
    for part in parts {
        write_length(out, b'$', part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Short numbers, which nearly all are, are written without formatting.
fn write_length(out: &mut Vec<u8>, sign: u8, number: usize) {
    let digit = |number: usize| b'0' + (number % 10) as u8;
    match number {
        0..10 => out.extend_from_slice(&[sign, digit(number), b'\r', b'\n']),
        10..100 => out.extend_from_slice(&[sign, digit(number / 10), digit(number), b'\r', b'\n']),
        _ => out.extend_from_slice(format!("{}{number}\r\n", sign as char).as_bytes()),
    }
}

/// Reads replies from a stream. Bytes behind a reply stay in its buffer for the next one.
#[derive(Default)]
pub(crate) struct ReplyReader {
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl ReplyReader {
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    pub(crate) fn read_reply(&mut self, stream: &mut impl Read) -> io::Result<Reply> {
        let reply = self.read_nested(stream, 0)?;
        if self.is_empty() {
            (self.at, self.end) = (0, 0);
            self.buffer.truncate(KEPT_BUFFER);
            self.buffer.shrink_to(KEPT_BUFFER);
        }
        Ok(reply)
    }

    fn read_nested(&mut self, stream: &mut impl Read, depth: usize) -> io::Result<Reply> {
        let line = self.read_line(stream)?;
        let (&sign, rest) = self.buffer[line].split_first().ok_or_else(protocol_error)?;
        let number =
            || std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(protocol_error);
        let length = || match number()? {
            -1 => Ok(None),
            length => {
                usize::try_from(length).ok().filter(|&length| length <= MAX_LENGTH).map(Some).ok_or_else(protocol_error)
            }
        };
        match sign {
            b'+' => Ok(Reply::Bytes(rest.to_vec())),
            b'-' => Ok(Reply::Error(String::from_utf8_lossy(rest).into_owned())),
            b':' => Ok(Reply::Int(number()?)),
            b'$' => match length()? {
                None => Ok(Reply::Nil),
                Some(length) => Ok(Reply::Bytes(self.read_bulk(stream, length)?)),
            },
            b'*' if depth < MAX_DEPTH => match length()? {
                None => Ok(Reply::Nil),
                Some(length) => {
                    let mut items = Vec::new();
                    for _ in 0..length {
                        items.push(self.read_nested(stream, depth + 1)?);
                    }
                    Ok(Reply::Array(items))
                }
            },
            _ => Err(protocol_error()),
        }
    }

    /// Where a line is, without its end.
    fn read_line(&mut self, stream: &mut impl Read) -> io::Result<Range<usize>> {
        let mut looked = 0;
        loop {
            let unread = &self.buffer[self.at..self.end];
            if let Some(end) = unread[looked..].iter().position(|&byte| byte == b'\n').map(|end| looked + end) {
                let len = unread[..end].strip_suffix(b"\r").ok_or_else(protocol_error)?.len();
                let line = self.at..self.at + len;
                self.at += end + 1;
                return Ok(line);
            }
            looked = unread.len();
            if looked > CHUNK {
                return Err(protocol_error());
            }
            self.fill(stream)?;
        }
    }

    fn read_bulk(&mut self, stream: &mut impl Read, length: usize) -> io::Result<Vec<u8>> {
        while self.end - self.at < length + 2 {
            self.fill(stream)?;
        }
        let (bulk, rest) = self.buffer[self.at..self.end].split_at(length);
        if !rest.starts_with(b"\r\n") {
            return Err(protocol_error());
        }
        self.at += length + 2;
        Ok(bulk.to_vec())
    }

    fn fill(&mut self, stream: &mut impl Read) -> io::Result<()> {
        if self.end == self.buffer.len() {
            // Doubles the buffer: a large reply takes few reads, and a wrong length takes no
            // memory.
            let more = CHUNK.max(self.end);
            self.buffer.try_reserve(more).map_err(|_| io::ErrorKind::OutOfMemory)?;
            self.buffer.resize(self.end + more, 0);
        }
        match stream.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            more => {
                self.end += more;
                Ok(())
            }
        }
    }
}

fn protocol_error() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a reply of a Redis server")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream of single bytes.
    struct ByteByByte<'a>(&'a [u8]);

    impl Read for ByteByByte<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let Some((&first, rest)) = self.0.split_first() else { return Ok(0) };
            (out[0], self.0) = (first, rest);
            Ok(1)
        }
    }

    fn read(bytes: &[u8]) -> io::Result<Reply> {
        let mut all = bytes;
        let reply = ReplyReader::default().read_reply(&mut all);
        let byte_by_byte = ReplyReader::default().read_reply(&mut ByteByByte(bytes));
        assert_eq!(format!("{reply:?}"), format!("{byte_by_byte:?}"));
        reply
    }

    #[test]
    fn reply_is_independent_of_fragmentation() {
        let array = read(b"*5\r\n:-7\r\n$5\r\na\r\nbc\r\n$-1\r\n+OK\r\n*1\r\n$0\r\n\r\n").unwrap();
        let bytes = |text: &str| Reply::Bytes(text.into());
        let inner = Reply::Array(vec![bytes("")]);
        assert_eq!(array, Reply::Array(vec![Reply::Int(-7), bytes("a\r\nbc"), Reply::Nil, bytes("OK"), inner]));
        assert_eq!(read(b"-ERR no\r\n").unwrap(), Reply::Error("ERR no".into()));
    }

    #[test]
    fn malformed_replies_are_errors() {
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
    fn command_gives_lengths_of_parts() {
        for (len, header) in [(0, "$0"), (9, "$9"), (10, "$10"), (99, "$99"), (100, "$100"), (70_000, "$70000")] {
            let (part, mut out) = (vec![b'x'; len], Vec::new());
            write_command(&mut out, &[b"SET", &part]);
            let expected = format!("*2\r\n$3\r\nSET\r\n{header}\r\n{}\r\n", "x".repeat(len));
            assert!(out == expected.as_bytes(), "{len}");
        }
    }

    #[test]
    fn parses_two_replies_from_one_read() {
        let (mut reader, mut from) = (ReplyReader::default(), &b":1\r\n:2\r\n"[..]);
        assert_eq!(reader.read_reply(&mut from).unwrap(), Reply::Int(1));
        assert!(!reader.is_empty());
        assert_eq!(reader.read_reply(&mut from).unwrap(), Reply::Int(2));
        assert!(reader.is_empty());
    }
}
