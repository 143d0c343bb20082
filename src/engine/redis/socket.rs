//! The two things that the standard library's sockets lack: connecting to a Unix socket with a timeout, and a look at
//! whether something has come without waiting for it. The only `unsafe` of this engine.
#![allow(unsafe_code)]

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

/// A server that hangs does not take new connections when its queue is full: the standard library would wait for ever.
pub(super) fn connect_unix(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let mut address = libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; _] };
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of the socket is too long"));
    }
    for (to, &from) in address.sun_path.iter_mut().zip(bytes) {
        *to = from as libc::c_char;
    }
    // SAFETY: socket has no preconditions.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: the descriptor is open; F_SETFD takes an integer.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // On Linux connect waits no longer than a write would (unix(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(timeout))?;
    let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_un of this length, with a NUL behind the path.
    match unsafe { libc::connect(fd, (&raw const address).cast(), length) } {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether the connection is open and nothing has come that nobody has asked for.
pub(super) fn is_quiet(socket: &impl AsRawFd) -> bool {
    let mut byte = 0_u8;
    // SAFETY: the descriptor is open for as long as `socket` lives, and one byte may be written to `byte`.
    let read =
        unsafe { libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_PEEK | libc::MSG_DONTWAIT) };
    read < 0 && io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock
}
