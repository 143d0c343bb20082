//! The two things that the standard library's sockets lack: connecting to a Unix socket with a timeout, and a look at
//! whether something has come without waiting for it.

use std::{
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// A server that hangs does not take new connections when its queue is full: the standard library would wait for ever.
pub(super) fn connect_unix(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // On Linux connect waits no longer than a write would (unix(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(timeout))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Whether the connection is open and nothing has come that nobody has asked for.
pub(super) fn is_quiet(socket: &impl AsFd) -> bool {
    let peek = SockRef::from(socket).recv_with_flags(&mut [MaybeUninit::uninit()], libc::MSG_PEEK | libc::MSG_DONTWAIT);
    peek.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
