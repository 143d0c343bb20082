//! Servers that speak TLS, with certificates of the tests' own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use super::redis::{Server, USER, free_port};

/// Certificates of an authority of the test's own, made by openssl.
pub struct Authority {
    directory: PathBuf,
    name: &'static str,
}

impl Authority {
    pub fn new(directory: &Path, name: &'static str) -> Authority {
        let authority = Authority { directory: directory.to_owned(), name };
        authority.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
        authority
    }

    /// The paths of a certificate for these names, and of its key.
    pub fn issue(&self, file: &str, names: &str, days: &str) -> (String, String) {
        let name = self.name;
        std::fs::write(self.directory.join(format!("{file}.ext")), format!("subjectAltName={names}")).unwrap();
        self.openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={file} -keyout {file}.key -out {file}.csr"));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA {name}.pem -CAkey {name}.key -CAcreateserial {days} -extfile {file}.ext -out {file}.pem"
        ));
        (self.path(&format!("{file}.pem")), self.path(&format!("{file}.key")))
    }

    pub fn path(&self, file: &str) -> String {
        self.directory.join(file).to_str().unwrap().to_owned()
    }

    fn openssl(&self, args: &str) {
        let made = Command::new("openssl")
            .args(args.split(' '))
            .current_dir(&self.directory)
            .stderr(Stdio::null())
            .status()
            .expect("openssl (tests/setup.sh installs it)");
        assert!(made.success(), "openssl {args}");
    }
}

/// A server with this certificate, and its port for TLS.
pub fn server(authority: &Authority, (cert, key): &(String, String), clients: &str) -> (Server, u16) {
    let port = free_port();
    let ca = authority.path(&format!("{}.pem", authority.name));
    let config = format!(
        "tls-port {port}\ntls-cert-file {cert}\ntls-key-file {key}\ntls-ca-cert-file {ca}\ntls-auth-clients {clients}"
    );
    (Server::start(&config), port)
}

/// The URL of the one that the tests of this process have in common, with these options. It ends
/// with the process.
pub fn shared_url(options: &str) -> String {
    static SHARED: OnceLock<(Server, u16, String)> = OnceLock::new();
    let (_, port, ca) = SHARED.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("sss-shared-tls-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let authority = Authority::new(&directory, "shared");
        let (server, port) = server(&authority, &authority.issue("server", "DNS:localhost", "-days 1"), "no");
        (server, port, authority.path("shared.pem"))
    });
    format!("rediss://{USER}:hunter2%2F%40@localhost:{port}?cafile={ca}&{options}")
}
