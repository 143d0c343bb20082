//! The file with the server's secrets, which `secret_file=` names: one secret a line, 64 hex digits
//! (`openssl rand -hex 32`). The first one seals, all of them open: to change the secret without
//! logging anyone out, put the new one in front and take the old one away when the last session
//! under it has ended.

use std::{io, os::unix::fs::MetadataExt, path::Path};

use super::{keyring::Keyring, zeroize::ZeroizeOnDrop};
use crate::{
    error::{Error, ErrorKind, Result},
    os::file::read_small_regular_file,
};

/// Room for about a thousand secrets.
const MAX_LEN: u64 = 64 << 10;
const DIGITS: usize = 64;

/// The secrets in the file.
pub(crate) fn read(path: &Path) -> Result<Keyring> {
    let mut text = ZeroizeOnDrop::new(Vec::new());
    let about = read_small_regular_file(path, MAX_LEN, &mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => bad(error),
        _ => Error::with_source(ErrorKind::Io, format!("the secret_file cannot be read: {error}"), error),
    })?;
    if about.mode() & 0o027 != 0 {
        return Err(bad("may be read by others or written by its group: chmod it to 0600 or 0640"));
    }
    parse(&text)
}

fn parse(text: &[u8]) -> Result<Keyring> {
    let mut keyring = Keyring::default();
    for (i, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let secret = secret(line).ok_or_else(|| bad(format!("has no 64 hex digits in line {}", i + 1)))?;
        if !keyring.add(&secret) {
            return Err(bad(format!("has the same secret again in line {}", i + 1)));
        }
    }
    if keyring.is_empty() {
        return Err(bad("holds no secret: 64 hex digits a line are wanted (openssl rand -hex 32)"));
    }
    Ok(keyring)
}

fn secret(line: &[u8]) -> Option<ZeroizeOnDrop<[u8; DIGITS / 2]>> {
    if line.len() != DIGITS {
        return None;
    }
    let mut secret = ZeroizeOnDrop::new([0; DIGITS / 2]);
    for (byte, digits) in secret.iter_mut().zip(line.chunks_exact(2)) {
        let digit = |i: usize| char::from(digits[i]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(secret)
}

/// The message never has the path's contents in it.
fn bad(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, format!("the secret_file {what}"))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const SECRET: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1F";

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).err().expect(text).to_string()
    }

    #[test]
    fn a_line_is_a_secret_and_comments_are_not() {
        let other = SECRET.replace("00", "ff");
        assert!(parse(format!("# new\n{SECRET}\n\n  {other} \r\n").as_bytes()).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_not_shown() {
        assert!(refused("").contains("no secret"));
        assert!(refused("# only this\n").contains("no secret"));
        let short = refused(&format!("{SECRET}\n{}\n", &SECRET[1..]));
        assert!(short.contains("line 2") && !short.contains("0102"));
        assert!(refused(&SECRET.replace('f', "g")).contains("line 1"));
        assert!(refused(&format!("{SECRET}\n{SECRET}")).contains("same secret again in line 2"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let path = std::env::temp_dir().join(format!("sss-secret-{}", std::process::id()));
        fs::write(&path, SECRET).unwrap();
        for (mode, fine) in [(0o600, true), (0o640, true), (0o644, false), (0o660, false), (0o602, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_ok(), fine, "{mode:o}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).err().unwrap().kind(), ErrorKind::Io);
    }

    #[test]
    fn device_is_refused() {
        let error = read(Path::new("/dev/zero")).err().unwrap();
        assert_eq!(
            (error.kind(), error.to_string()),
            (ErrorKind::Invalid, "the secret_file is not a regular file".into())
        );
    }
}
