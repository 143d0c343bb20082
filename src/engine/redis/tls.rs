//! TLS by rustls: the server's certificate must come from an authority that the client was told of and be for the host in the
//! URL. There is no way to turn that off.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use super::servers::Address;
use crate::{
    error::{Error, ErrorKind, Result},
    url::Tls,
};

/// Where systems keep the authorities that they trust.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What connections begin with, from the files that the URL names.
pub(super) fn config(files: &Tls) -> Result<Arc<ClientConfig>> {
    let system = || BUNDLES.iter().map(Path::new).find(|path| path.exists());
    let cafile = files.cafile.as_deref().or_else(system).ok_or_else(|| {
        Error::fixed(ErrorKind::Url, "rediss: finds no certificate authorities of the system: give 'cafile'")
    })?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates("cafile", cafile)?);
    if added == 0 {
        return Err(bad("cafile", cafile, "holds no certificate authority"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| Error::fixed(ErrorKind::Unsupported, "this build knows no version of TLS"))?
        .with_root_certificates(roots);
    let mut config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("cert", cert)?;
            let own = PrivateKeyDer::from_pem_file(key).map_err(|error| bad("key", key, error))?;
            builder.with_client_auth_cert(chain, own).map_err(|error| bad("cert", cert, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    // What could be resumed would lie behind a lock, which a forked child must not meet.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection to this server, which has not said anything yet.
pub(super) fn connection(config: &Arc<ClientConfig>, server: &Address) -> std::io::Result<ClientConnection> {
    let name = match server {
        Address::Tcp(host) => ServerName::try_from(host.name.clone()).map_err(std::io::Error::other)?,
        Address::Unix(_) => return Err(std::io::Error::other("a Unix socket has no name to be certified")),
    };
    ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let text = fs::read(path).map_err(|error| bad(option, path, error))?;
    CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|error| bad(option, path, error))
}

fn bad(option: &str, path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("'{option}' {}: {what}", path.display()))
}
