//! How the small files that a URL names are read: secrets, certificates and keys.

use std::{
    fs::{Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Appends the content of a regular file of at most `max_len` bytes to `content`, and returns what
/// is known of the file. Another kind of file, or a longer one, is `InvalidInput` with a text that
/// goes after the name of the file.
///
/// A FIFO does not block it and a device is not read. Room for all of it is reserved first, because
/// growing would leave copies of secrets behind.
pub(crate) fn read_small_regular_file(path: &Path, max_len: u64, content: &mut Vec<u8>) -> io::Result<Metadata> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
    }
    // One byte more than it may have, also where the file system does not tell the length (/proc).
    content.reserve_exact(about.len().min(max_len) as usize + 1);
    let read = file.take(max_len + 1).read_to_end(content)?;
    if read as u64 > max_len {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("is longer than {max_len} bytes")));
    }
    Ok(about)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    fn error_of(path: &Path) -> String {
        read_small_regular_file(path, 100, &mut Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn special_files_are_refused_at_once() {
        let directory = std::env::temp_dir().join(format!("sss-file-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let fifo = directory.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [&fifo, &directory, Path::new("/dev/zero")] {
            assert_eq!(error_of(path), "is not a regular file", "{}", path.display());
        }
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn file_up_to_limit_is_read_whole() {
        let path = std::env::temp_dir().join(format!("sss-file-len-{}", std::process::id()));
        for (len, fits) in [(0, true), (99, true), (100, true), (101, false), (5000, false)] {
            fs::write(&path, vec![b'x'; len]).unwrap();
            let mut content = Vec::new();
            let read = read_small_regular_file(&path, 100, &mut content);
            assert_eq!(read.is_ok_and(|about| about.len() == len as u64 && content.len() == len), fits, "{len}");
        }
        assert!(error_of(Path::new("/proc/self/maps")).contains("longer than 100 bytes"));
        fs::remove_file(&path).unwrap();
    }
}
