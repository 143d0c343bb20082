//! A byte stream to a server that ends at a moment: however its bytes come, one at a time or not at all, nobody waits
//! longer. (The timeouts of sockets are for one read or write each, so they are set anew as time goes on.)

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    sync::Arc,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{servers::Address, socket, tls};

/// So much later than asked for may a timeout be noticed; it saves a system call for most reads.
const SLACK: Duration = Duration::from_millis(5);
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) enum Stream {
    Plain(Timed),
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

/// A socket with an end.
pub(super) struct Timed {
    socket: Socket,
    until: Instant,
    read_timeout: Duration,
    write_timeout: Duration,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn connect(address: &Address, tls: Option<&Arc<ClientConfig>>, until: Instant) -> io::Result<Stream> {
        let timed = Timed::connect(address, until)?;
        Ok(match tls {
            None => Stream::Plain(timed),
            // Dropping it closes the socket and says nothing to the server, so that a forked child may do it.
            Some(config) => Stream::Tls(Box::new(StreamOwned::new(tls::connection(config, address)?, timed))),
        })
    }

    /// All that follows ends then.
    pub(super) fn end_at(&mut self, until: Instant) {
        match self {
            Stream::Plain(timed) => timed.until = until,
            Stream::Tls(tls) => tls.sock.until = until,
        }
    }

    /// Whether it is open and nothing has come that nobody has asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        match self {
            Stream::Plain(timed) => timed.is_quiet(),
            Stream::Tls(tls) => {
                let rest = tls.conn.process_new_packets();
                rest.is_ok_and(|rest| rest.plaintext_bytes_to_read() == 0) && tls.sock.is_quiet()
            }
        }
    }
}

impl Read for Stream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(timed) => timed.read(out),
            Stream::Tls(tls) => tls.read(out),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(timed) => timed.write(bytes),
            Stream::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(timed) => timed.flush(),
            Stream::Tls(tls) => tls.flush(),
        }
    }
}

impl Timed {
    fn connect(address: &Address, until: Instant) -> io::Result<Timed> {
        let socket = match address {
            Address::Unix(path) => Socket::Unix(socket::connect_unix(path, left(until)?)?),
            Address::Tcp(host) => {
                // The system's resolver has a timeout of its own.
                let addresses = (&host.name[..], host.port).to_socket_addrs()?;
                let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                let connected = addresses.into_iter().find_map(|address| {
                    let connected = left(until).and_then(|left| TcpStream::connect_timeout(&address, left));
                    connected.map_err(|error| failed = error).ok()
                });
                let socket = connected.ok_or(failed)?;
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
        };
        Ok(Timed { socket, until, read_timeout: Duration::ZERO, write_timeout: Duration::ZERO })
    }

    fn is_quiet(&self) -> bool {
        match &self.socket {
            Socket::Tcp(socket) => socket::is_quiet(socket),
            Socket::Unix(socket) => socket::is_quiet(socket),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = renewed(&mut self.read_timeout, self.until)? {
                match &self.socket {
                    Socket::Tcp(socket) => socket.set_read_timeout(Some(timeout))?,
                    Socket::Unix(socket) => socket.set_read_timeout(Some(timeout))?,
                }
            }
            let read = match &mut self.socket {
                Socket::Tcp(socket) => socket.read(out),
                Socket::Unix(socket) => socket.read(out),
            };
            match read {
                Err(error) if is_to_be_repeated(&error) => continue,
                read => return read,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = renewed(&mut self.write_timeout, self.until)? {
                match &self.socket {
                    Socket::Tcp(socket) => socket.set_write_timeout(Some(timeout))?,
                    Socket::Unix(socket) => socket.set_write_timeout(Some(timeout))?,
                }
            }
            let written = match &mut self.socket {
                Socket::Tcp(socket) => socket.write(bytes),
                Socket::Unix(socket) => socket.write(bytes),
            };
            match written {
                Err(error) if is_to_be_repeated(&error) => continue,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time that is left, or the error that none is.
pub(super) fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(SHORTEST)) }
}

/// The timeout to be set, if the one that is set does not fit the time that is left.
fn renewed(set: &mut Duration, until: Instant) -> io::Result<Option<Duration>> {
    let left = left(until)?;
    if *set <= left + SLACK && *set >= left / 2 {
        return Ok(None);
    }
    *set = left;
    Ok(Some(left))
}

/// A socket's own timeout is WouldBlock: whether time is really over, the clock says.
fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
