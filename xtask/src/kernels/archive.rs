//! An initramfs: a cpio archive in the form "newc" (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive that is being written. Owners are root, times are zero.
pub(super) struct Archive<W> {
    out: W,
    inode: u32,
    /// What is in it, without a leading slash.
    names: HashSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Archive { out, inode: 0, names: HashSet::new() }
    }

    /// Adds a directory and those above it, unless they are there.
    pub(super) fn directory(&mut self, path: &Path) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        let above: Vec<&Path> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        for path in above.into_iter().rev() {
            if self.names.insert(path.to_owned()) {
                self.entry(path, DIRECTORY | 0o755, b"")?;
            }
        }
        Ok(())
    }

    /// Adds a file. The first one of a name counts.
    pub(super) fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.leaf(path, FILE | mode & 0o7777, content)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.leaf(path, LINK | 0o777, target.as_os_str().as_encoded_bytes())
    }

    /// Adds a file or a link of this machine under `path`.
    pub(super) fn copy(&mut self, from: &Path, path: &Path) -> Result<()> {
        let mut copy = || -> io::Result<()> {
            let metadata = fs::symlink_metadata(from)?;
            if metadata.is_symlink() {
                self.link(path, &fs::read_link(from)?)
            } else {
                self.file(path, metadata.permissions().mode(), &fs::read(from)?)
            }
        };
        copy().with_context(|| format!("cannot put {} into the initramfs", from.display()))
    }

    fn leaf(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        if self.names.insert(path.to_owned()) { self.entry(path, mode, content) } else { Ok(()) }
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let name = path.as_os_str().as_encoded_bytes();
        let size = u32::try_from(content.len()).map_err(|_| io::Error::other(format!("{} is too large", path.display())))?;
        let links = 1;
        let (uid, gid, time, device) = (0, 0, 0, 0);
        let fields = [self.inode, mode, uid, gid, links, time, size, device, device, device, device, name.len() as u32 + 1, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name)?;
        // The header has 110 bytes; name and content end at multiples of four.
        self.pad(110 + name.len() + 1, 1)?;
        self.out.write_all(content)?;
        self.pad(content.len(), 0)
    }

    fn pad(&mut self, len: usize, at_least: usize) -> io::Result<()> {
        let padding = at_least + len.next_multiple_of(4) - len;
        self.out.write_all(&[0; 4][..padding])
    }

    /// Ends the archive; another one may follow behind it.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry(Path::new("TRAILER!!!"), 0, b"")?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Read back by another program.
    #[test]
    fn others_can_read_it() {
        let Some(cpio) = xtask::command::find("cpio") else {
            xtask::testing::skipped("kernels::archive::others_can_read_it", "cpio is not installed");
            return;
        };
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/usr/bin/tool"), 0o755, b"abcde").unwrap();
        archive.file(Path::new("usr/bin/tool"), 0o755, b"a second one of the name").unwrap();
        archive.link(Path::new("bin"), Path::new("usr/bin")).unwrap();
        archive.file(Path::new("etc/x"), 0o644, b"").unwrap();
        let bytes = archive.finish().unwrap();
        let mut child = Command::new(cpio).args(["-tv", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        let found: Vec<(&str, &str, &str)> = words.iter().map(|words| (words[0], words[4], words[8])).collect();
        assert_eq!(
            found,
            [
                ("drwxr-xr-x", "0", "usr"),
                ("drwxr-xr-x", "0", "usr/bin"),
                ("-rwxr-xr-x", "5", "usr/bin/tool"),
                ("lrwxrwxrwx", "7", "bin"),
                ("drwxr-xr-x", "0", "etc"),
                ("-rw-r--r--", "0", "etc/x"),
            ]
        );
    }
}
