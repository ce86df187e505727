//! A node's disk: a directory, or, for root, a small file system of its own that can lose its power.
//!
//! Power is lost by `FS_IOC_SHUTDOWN` without a flush of the log on an ext4 that is mounted from a file:
//! from then on it takes nothing, and what was not synced is gone when it is mounted again. That is the
//! kernel's own code for what happens when the machine stops. A drive that lies about what it synced is
//! beyond it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use rustix::ioctl::{Setter, ioctl};

/// How large a file system is. It is a sparse file: only what is written takes room.
const BYTES: u64 = 4 << 30;
/// `FS_IOC_SHUTDOWN`, and the way of it that flushes nothing.
const FS_IOC_SHUTDOWN: u32 = 0x8004_587d;
const NOLOGFLUSH: u32 = 2;
/// How long the kernel may need to let a file system go after its last user was killed.
const UNMOUNT_MAX: Duration = Duration::from_secs(20);
const UNMOUNT_PAUSE: Duration = Duration::from_millis(5);

/// What a node keeps its data on.
#[derive(Debug)]
pub(crate) enum Volume {
    /// A directory of the machine's own file system.
    Directory(PathBuf),
    /// An ext4 in a file, mounted.
    Ext4 { image: PathBuf, mount: PathBuf },
}

impl Volume {
    /// Whether this process may make file systems.
    pub(crate) fn can_lose_power() -> bool {
        let found = |tool: &str| {
            Path::new("/usr/sbin").join(tool).exists() || Path::new("/sbin").join(tool).exists()
        };
        rustix::process::geteuid().is_root()
            && Path::new("/dev/loop-control").exists()
            && found("mkfs.ext4")
    }

    /// An empty volume in `folder`.
    pub(crate) fn new(folder: &Path, name: &str, ext4: bool) -> Result<Volume, String> {
        let mount = folder.join(name);
        std::fs::create_dir(&mount).map_err(|e| format!("cannot make {}: {e}", mount.display()))?;
        if !ext4 {
            return Ok(Volume::Directory(mount));
        }
        let image = folder.join(format!("{name}.ext4"));
        let file = File::create(&image).and_then(|file| file.set_len(BYTES));
        file.map_err(|e| format!("cannot make {}: {e}", image.display()))?;
        run("mkfs.ext4", &["-q", "-m", "0"], &[&image])?;
        run("mount", &["-o", "loop"], &[&image, &mount])?;
        Ok(Volume::Ext4 { image, mount })
    }

    /// Where the data is.
    pub(crate) fn data(&self) -> PathBuf {
        let (Volume::Directory(dir) | Volume::Ext4 { mount: dir, .. }) = self;
        dir.join("data")
    }

    /// Takes the power away: nothing that was not synced is kept, and nothing is taken any more.
    pub(crate) fn power_off(&self) -> Result<(), String> {
        let Volume::Ext4 { mount, .. } = self else { return Err("it is a directory".into()) };
        let top = File::open(mount).map_err(|e| format!("cannot open {}: {e}", mount.display()))?;
        #[allow(
            unsafe_code,
            reason = "the kernel's only way to lose power; the argument is as ext4 documents it"
        )]
        // SAFETY: the request takes a pointer to a 32-bit number, which this is.
        let told = unsafe { ioctl(&top, Setter::<FS_IOC_SHUTDOWN, u32>::new(NOLOGFLUSH)) };
        told.map_err(|e| format!("the power cannot be lost: {e}"))
    }

    /// Gives the power back; whoever used it has to be gone.
    pub(crate) async fn power_on(&self) -> Result<(), String> {
        let Volume::Ext4 { image, mount } = self else { return Err("it is a directory".into()) };
        let begun = Instant::now();
        while let Err(why) = run("umount", &[], &[mount]) {
            // The last user was killed, and the kernel may not be done with him.
            if begun.elapsed() > UNMOUNT_MAX {
                return Err(why);
            }
            tokio::time::sleep(UNMOUNT_PAUSE).await;
        }
        run("mount", &["-o", "loop"], &[image, mount])
    }

    /// Takes all the room that is left. True if there was any.
    pub(crate) fn fill(&self) -> Result<bool, String> {
        let Volume::Ext4 { mount, .. } = self else { return Err("it is a directory".into()) };
        let file = File::create(mount.join("balloon")).map_err(|e| format!("no balloon: {e}"))?;
        let (mut len, mut filled) = (0, false);
        loop {
            let found = statvfs(mount).map_err(|e| format!("cannot look at the volume: {e}"))?;
            let room = found.f_bavail * found.f_frsize;
            let mut piece = room;
            loop {
                if piece < found.f_frsize {
                    return Ok(filled);
                }
                match fallocate(&file, FallocateFlags::empty(), len, piece) {
                    Ok(()) => break,
                    Err(Errno::NOSPC) => piece /= 2,
                    Err(e) => return Err(format!("cannot fill the volume: {e}")),
                }
            }
            (len, filled) = (len + piece, true);
        }
    }

    /// Gives that room back.
    pub(crate) fn empty(&self) -> Result<(), String> {
        let Volume::Ext4 { mount, .. } = self else { return Ok(()) };
        match std::fs::remove_file(mount.join("balloon")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("a balloon stays: {e}"));
            }
            _ => {}
        }
        // Or it would be back after a power loss, and nobody would know of it.
        let synced = File::open(mount).and_then(|mount| mount.sync_all());
        synced.map_err(|e| format!("a balloon may come back: {e}"))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let Volume::Ext4 { mount, .. } = self else { return };
        // At once, or as soon as its last user is gone.
        let unmounted = run("umount", &[], &[mount]).or_else(|_| run("umount", &["-l"], &[mount]));
        if let Err(why) = unmounted {
            eprintln!("chaos: left behind: {why}");
        }
    }
}

fn run(tool: &str, args: &[&str], paths: &[&Path]) -> Result<(), String> {
    let command = &mut Command::new(tool);
    let command = command.args(args).args(paths).stdin(Stdio::null());
    let done = command.output().map_err(|e| format!("cannot run {tool}: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{tool}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}
