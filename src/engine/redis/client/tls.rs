//! TLS by rustls: the server's certificate must come from a trusted authority and be for the host
//! in the URL. No option turns this check off.

use std::{
    io::{self, Read, Write},
    path::Path,
    sync::Arc,
    time::Instant,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::{
    address::Address,
    stream::{DeadlineStream, Stream},
};
use crate::{
    error::{Error, ErrorKind, Result},
    os::file::read_small_regular_file,
    url::Tls,
};

/// Far above any bundle of certificates.
const MAX_FILE: u64 = 16 << 20;

/// The trusted authorities and the client's own certificate.
#[derive(Clone)]
pub(super) struct TlsConfig(Arc<ClientConfig>);

impl TlsConfig {
    /// From the files that the URL names, and the system's authorities if it names none.
    pub(super) fn load(files: &Tls) -> Result<TlsConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| Error::fixed(ErrorKind::Unsupported, "this build knows no version of TLS"))?
            .with_root_certificates(trusted_authorities(files.cafile.as_deref())?);
        let mut config = match (&files.cert, &files.key) {
            (Some(cert), Some(key)) => {
                let chain = read_certificates("cert", cert)?;
                let private_key = read_file("key", key).and_then(|pem| {
                    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| file_error("key", key, error))
                })?;
                builder.with_client_auth_cert(chain, private_key).map_err(|error| file_error("cert", cert, error))?
            }
            _ => builder.with_no_client_auth(),
        };
        // Sessions to resume would be behind a lock, which a forked child must not meet.
        config.resumption = Resumption::disabled();
        Ok(TlsConfig(Arc::new(config)))
    }

    /// TLS over a connection on which nothing was sent yet.
    pub(super) fn wrap(&self, stream: DeadlineStream, server: &Address) -> io::Result<Box<dyn Stream>> {
        let name = match server {
            Address::Tcp(host) => ServerName::try_from(host.name.clone()).map_err(io::Error::other)?,
            Address::Unix(_) => {
                return Err(io::Error::other("a Unix socket has no name that a certificate could be for"));
            }
        };
        let session = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        Ok(Box::new(TlsStream(StreamOwned::new(session, stream))))
    }
}

/// Dropping it closes the socket and sends nothing, so that a forked child may drop it.
struct TlsStream(StreamOwned<ClientConnection, DeadlineStream>);

impl Stream for TlsStream {
    fn set_deadline(&mut self, deadline: Instant) {
        self.0.sock.set_deadline(deadline);
    }

    fn has_no_pending_input(&mut self) -> bool {
        let state = self.0.conn.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() == 0) && self.0.sock.has_no_pending_input()
    }
}

impl Read for TlsStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn trusted_authorities(cafile: Option<&Path>) -> Result<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    match cafile {
        Some(path) => {
            let (added, _) = authorities.add_parsable_certificates(read_certificates("cafile", path)?);
            if added == 0 {
                return Err(file_error("cafile", path, "has no certificate of an authority"));
            }
        }
        None => {
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if authorities.is_empty() {
                let message = "rediss: the system has no certificate authorities: give 'cafile', or set SSL_CERT_FILE";
                return Err(Error::fixed(ErrorKind::Url, message));
            }
        }
    }
    Ok(authorities)
}

fn read_certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read_file(option, path)?;
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|error| file_error(option, path, error))
}

fn read_file(option: &str, path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    read_small_regular_file(path, MAX_FILE, &mut content).map_err(|error| file_error(option, path, error))?;
    Ok(content)
}

fn file_error(option: &str, path: &Path, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("'{option}' {}: {error}", path.display()))
}
