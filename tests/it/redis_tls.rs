//! `rediss://`: a server without a valid certificate receives nothing, in particular no password.

use std::{path::Path, time::Duration};

use crate::common::{
    PLAIN, kind, of,
    proxy::{Mode, Proxy},
    redis::USER,
    timed::{LATE, timed},
    tls::{Authority, server},
};
use sss::{Access, Error, ErrorKind, Store};

fn open(host: &str, port: u16, options: &str) -> Result<Store, Error> {
    Store::open(&format!("rediss://{USER}:hunter2%2F%40@{host}:{port}?{options}"))
}

fn create(host: &str, port: u16, options: &str) -> Result<(), Error> {
    open(host, port, options)?.create(b"x", &PLAIN).map(drop)
}

#[test]
fn tls_requires_valid_certificate() {
    let directory = std::env::temp_dir().join(format!("sss-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let authority = Authority::new(&directory, "ca");
    let stranger = Authority::new(&directory, "stranger");
    let cafile = format!("cafile={}", authority.path("ca.pem"));
    let days = "-days 2";

    let good = authority.issue("good", "IP:127.0.0.1,DNS:localhost", days);
    let (server_, port) = server(&authority, &good, "no");
    // A debug build takes a while to encrypt a large payload.
    let store = open("localhost", port, &format!("{cafile}&deadline=10s")).unwrap();
    let payload = vec![7; 300_000];
    let (sid, _) = store.create(&payload, &of(b"alice")).unwrap();
    assert_eq!(store.get(&sid, Access::Slide).unwrap().0, payload);
    store.put(&sid, b"small", &PLAIN).unwrap();
    let (sid, _) = store.renew(&sid, None, &PLAIN).unwrap();
    assert_eq!(store.list(b"alice").unwrap().len(), 1);
    store.delete(&sid).unwrap();
    create("127.0.0.1", port, &cafile).unwrap();

    let refused = |result: Result<(), Error>| {
        let error = result.unwrap_err();
        // A server that does not speak TLS waits for the end of a line.
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error}");
        assert!(!error.to_string().contains("hunter2"));
        error.to_string()
    };
    // Of an authority that is not known; without one of its own the system's are the known ones.
    assert!(
        refused(create("localhost", port, &format!("cafile={}", stranger.path("stranger.pem")))).contains("Issuer")
    );
    if Path::new("/etc/ssl/certs/ca-certificates.crt").exists() {
        refused(create("localhost", port, "deadline=3s"));
    }
    // A port without TLS: nothing is said there in the clear.
    refused(create("localhost", server_.port, &cafile));
    let of_another = authority.issue("other", "DNS:elsewhere.example", days);
    let (_server, port) = server(&authority, &of_another, "no");
    assert!(refused(create("localhost", port, &cafile)).contains("name"));
    let old = authority.issue("old", "DNS:localhost", "-days -1");
    let (_server, port) = server(&authority, &old, "no");
    assert!(refused(create("localhost", port, &cafile)).to_lowercase().contains("expired"));

    // A server that wants a certificate of its clients.
    let (_server, port) = server(&authority, &good, "yes");
    refused(create("localhost", port, &cafile));
    let (cert, key) = authority.issue("client", "DNS:client", days);
    create("localhost", port, &format!("{cafile}&cert={cert}&key={key}")).unwrap();
    let (cert, key) = stranger.issue("foreign", "DNS:client", days);
    refused(create("localhost", port, &format!("{cafile}&cert={cert}&key={key}")));
    // Files that are not what they should be.
    for options in [format!("cafile={key}"), format!("{cafile}&cert={key}&key={cert}"), "cafile=/nowhere".to_owned()] {
        assert_eq!(kind(&open("localhost", port, &options)), Some(ErrorKind::Io), "{options}");
    }

    // Also encrypted a call ends in time.
    let (_server, port) = server(&authority, &good, "no");
    for mode in [Mode::Stall, Mode::Dribble(Duration::from_millis(100)), Mode::Cut(5)] {
        for warm in [false, true] {
            let proxy = Proxy::to(port);
            let url = format!("rediss://{USER}:hunter2%2F%40@localhost:{}?deadline=400ms&{cafile}", proxy.port);
            let store = Store::open(&url).unwrap();
            if warm {
                store.create(b"x", &PLAIN).unwrap();
            }
            proxy.set(mode);
            let (failed, took) = timed(|| store.create(b"x", &PLAIN));
            assert!(took < Duration::from_millis(400) + LATE, "{took:?} {mode:?}");
            assert!(matches!(kind(&failed), Some(ErrorKind::Timeout | ErrorKind::Unavailable)), "{failed:?}");
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}

/// A FIFO would block the open, and a device never ends.
#[test]
fn special_tls_files_are_refused() {
    let directory = std::env::temp_dir().join(format!("sss-tls-special-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let authority = Authority::new(&directory, "ca");
    let (cert, key) = authority.issue("client", "DNS:client", "-days 2");
    let cafile = authority.path("ca.pem");
    let fifo = directory.join("fifo").display().to_string();
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for special in [&fifo, "/dev/zero", "/dev/null"] {
        for options in [
            format!("cafile={special}"),
            format!("cafile={cafile}&cert={special}&key={key}"),
            format!("cafile={cafile}&cert={cert}&key={special}"),
        ] {
            let error = open("localhost", 1, &options).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Io, "{options}");
            assert!(error.to_string().contains("is not a regular file"), "{options}: {error}");
        }
    }
    std::fs::remove_dir_all(&directory).unwrap();
}
