//! File operations of the real binary that fail: by a library put before the C library, which answers in the
//! kernel's place for one file; and by a file system of its own that the kernel makes read-only under it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::redtail::Redtail;
use super::skip;

/// The numbers of errors, as the kernel has them.
pub(crate) const EIO: u32 = 5;
pub(crate) const EROFS: u32 = 30;

/// What fails of one file, for the processes of one [`Redtail`].
pub(crate) struct Failing {
    control: PathBuf,
}

impl Failing {
    /// The same binary with operations on files of this name under control; `None` where there is no C compiler.
    pub(crate) fn prepare(test: &str, redtail: &Redtail, file: &str) -> Option<(Redtail, Self)> {
        let (library, control) = (redtail.path("failing.so"), redtail.path("failing.now"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/support/failing.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        let built = cfg!(target_os = "linux") && cc.status().is_ok_and(|status| status.success());
        if !built {
            skip("REDTAIL_REQUIRE_FAILING", &format!("{test}: no C compiler for Linux here"));
            return None;
        }
        let library = library.to_str().expect("a path that is text").to_owned();
        let failing = redtail
            .with_env("LD_PRELOAD", &library)
            .with_env("FAILING_FILE", file)
            .with_env("FAILING_CONTROL", control.to_str().expect("a path that is text"));
        Some((failing, Self { control }))
    }

    /// From now on these operations fail (`r` read, `w` write, `s` fsync, `l` length).
    pub(crate) fn begin(&self, operations: &str, error: u32) {
        let next = self.control.with_extension("next");
        fs::write(&next, format!("{operations} {error}\n")).unwrap();
        fs::rename(next, &self.control).unwrap();
    }

    /// From now on nothing fails.
    pub(crate) fn end(&self) {
        fs::remove_file(&self.control).unwrap();
    }
}

/// A file system of its own in a file, mounted for as long as this lives.
pub(crate) struct Mounted {
    folder: PathBuf,
    device: String,
}

fn done(command: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(command).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

impl Mounted {
    /// An ext4 that becomes read-only at its first error; `None` where this process may not mount.
    pub(crate) fn new(test: &str, folder: &Path) -> Option<Self> {
        let mounted = Self::mount(folder);
        if mounted.is_none() {
            skip("REDTAIL_REQUIRE_MOUNT", &format!("{test}: this process cannot mount an ext4 from a file"));
        }
        mounted
    }

    fn mount(folder: &Path) -> Option<Self> {
        let image = folder.with_extension("ext4");
        fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).unwrap();
        let image = image.to_str()?;
        done("mkfs.ext4", &["-q", image])?;
        fs::create_dir(folder).unwrap();
        done("mount", &["-o", "loop,errors=remount-ro", image, folder.to_str()?])?;
        let mut mounted = Self { folder: folder.to_owned(), device: String::new() };
        mounted.device = done("findmnt", &["-n", "-o", "SOURCE", folder.to_str()?])?;
        mounted.trigger().exists().then_some(mounted)
    }

    /// What makes the kernel find an error in it.
    fn trigger(&self) -> PathBuf {
        let device = self.device.rsplit('/').next().unwrap_or_default();
        Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error")
    }

    /// The kernel finds an error: from now on it is read-only, files that are open included.
    pub(crate) fn break_it(&self) {
        fs::write(self.trigger(), "1").unwrap();
    }

    /// As an administrator mends it: unmounted, checked, mounted again.
    pub(crate) fn mend(&self) {
        let (folder, image) = (self.folder.to_str().unwrap(), self.folder.with_extension("ext4"));
        assert!(done("umount", &[folder]).is_some(), "nobody has a file open in it");
        // It says 1 where it has mended something.
        let _ = done("fsck.ext4", &["-p", "-f", image.to_str().unwrap()]);
        let mount = ["-o", "loop,errors=remount-ro", image.to_str().unwrap(), folder];
        assert!(done("mount", &mount).is_some(), "it can be mounted again");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = done("umount", &["-l", self.folder.to_str().unwrap_or_default()]);
    }
}
