//! A byte stream to a server with one deadline for all reads and writes, even if its bytes arrive
//! one by one. The timeouts of sockets hold for one read or write each, so they are set again as
//! time passes.

use std::{
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{TcpStream, ToSocketAddrs},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

use super::address::Address;

/// A timeout may be noticed so much later than the deadline; this saves a system call for most
/// reads.
const SLACK: Duration = Duration::from_millis(5);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// What a connection sends and receives through: a socket, or TLS over one.
pub(super) trait Stream: Read + Write + Send {
    /// Every read and write from now on ends at this time.
    fn set_deadline(&mut self, deadline: Instant);

    /// Whether the connection is open and nothing has arrived that was not asked for.
    fn has_no_pending_input(&mut self) -> bool;
}

/// A socket with a deadline.
pub(super) struct DeadlineStream {
    socket: Socket,
    deadline: Instant,
    read_timeout: Duration,
    write_timeout: Duration,
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl DeadlineStream {
    pub(super) fn connect(address: &Address, deadline: Instant) -> io::Result<DeadlineStream> {
        let socket = match address {
            Address::Unix(path) => Socket::Unix(connect_unix(path, remaining(deadline)?)?),
            Address::Tcp(host) => {
                // The system's resolver has timeouts of its own.
                let addresses = (&host.name[..], host.port).to_socket_addrs()?;
                let mut failed = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
                let connected = addresses.into_iter().find_map(|address| {
                    let connected = remaining(deadline).and_then(|left| TcpStream::connect_timeout(&address, left));
                    connected.map_err(|error| failed = error).ok()
                });
                let socket = connected.ok_or(failed)?;
                socket.set_nodelay(true)?;
                Socket::Tcp(socket)
            }
        };
        Ok(DeadlineStream { socket, deadline, read_timeout: Duration::ZERO, write_timeout: Duration::ZERO })
    }
}

impl Stream for DeadlineStream {
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn has_no_pending_input(&mut self) -> bool {
        let peeked = SockRef::from(&self.socket)
            .recv_with_flags(&mut [MaybeUninit::uninit()], libc::MSG_PEEK | libc::MSG_DONTWAIT);
        peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Read for DeadlineStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = changed_timeout(&mut self.read_timeout, self.deadline)? {
                SockRef::from(&self.socket).set_read_timeout(Some(timeout))?;
            }
            let read = match &mut self.socket {
                Socket::Tcp(socket) => socket.read(out),
                Socket::Unix(socket) => socket.read(out),
            };
            match read {
                Err(error) if is_retryable(&error) => continue,
                read => return read,
            }
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = changed_timeout(&mut self.write_timeout, self.deadline)? {
                SockRef::from(&self.socket).set_write_timeout(Some(timeout))?;
            }
            let written = match &mut self.socket {
                Socket::Tcp(socket) => socket.write(bytes),
                Socket::Unix(socket) => socket.write(bytes),
            };
            match written {
                Err(error) if is_retryable(&error) => continue,
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(socket) => socket.as_fd(),
            Socket::Unix(socket) => socket.as_fd(),
        }
    }
}

/// The standard library would wait without end: a server that hangs accepts no connections when its
/// queue is full.
fn connect_unix(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    // On Linux connect waits no longer than a write would (unix(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// The time that remains, or the error that none does.
pub(super) fn remaining(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(MIN_TIMEOUT)) }
}

/// The timeout to set, if the one that is set does not fit the remaining time.
fn changed_timeout(set: &mut Duration, deadline: Instant) -> io::Result<Option<Duration>> {
    let left = remaining(deadline)?;
    if *set <= left + SLACK && *set >= left / 2 {
        return Ok(None);
    }
    *set = left;
    Ok(Some(left))
}

/// A socket's own timeout is WouldBlock: the clock decides whether the deadline has passed.
fn is_retryable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
