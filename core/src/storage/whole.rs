//! Small files that are replaced as a whole: after a crash there is the old one or the new one.
//!
//! Such a file is written beside its place, synced, renamed over the old one, and the directory is
//! synced. It opens with sixteen bytes: magic, version, length and checksum, so that damage, an
//! unfinished copy and a newer version are told apart. Room for the next one is set aside beforehand, in
//! the copy's place, so that a full disk stops no replacement. What stands behind them is the owner's: see
//! `manifest.rs` and `identity.rs`. Bytes are in `FORMAT.md`.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use virtuallog_protocol::record::Crc32c;

use super::disk::{Disk, DiskFile, OpenMode, is_full, read_up_to};
use super::error::io_error;
use super::journal::PAGE;
use crate::error::{Error, ErrorCode};

const HEAD_LEN: usize = 16;
/// More than any store needs; a length beyond it is damage.
const BYTES_MAX: u64 = 1 << 30;
/// Most that is set aside for the next replacement.
const ROOM_MAX: u64 = 1 << 20;

/// One kind of such files, of which a store has one.
pub(crate) struct Whole {
    /// Its name in the store's directory.
    pub(crate) name: &'static str,
    /// Its name until it is durable.
    pub(crate) temporary: &'static str,
    pub(crate) magic: [u8; 4],
    /// The version that this build writes, and the highest that it reads.
    pub(crate) version: u32,
}

impl Whole {
    /// The content, as `decode` understands it; `None` when there is no such file.
    ///
    /// # Errors
    /// `CORRUPT`, also when `decode` makes nothing of it; `INCOMPATIBLE`, or what the disk said.
    pub(crate) fn read<T>(
        &self,
        disk: &dyn Disk,
        root: &Path,
        decode: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let path = root.join(self.name);
        let fail = |e| io_error("read", &path, e);
        let file = match disk.open(&path, OpenMode::Read) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(fail)?,
        };
        let len = file.len().map_err(fail)?;
        let mut bytes = vec![0; len.min(BYTES_MAX) as usize];
        let read = read_up_to(file.as_ref(), &mut bytes, 0).map_err(fail)?;
        let decoded = self.body(&bytes[..read]).and_then(|body| match decode(body) {
            Some(content) => Ok(content),
            None => Err(Damage::Bytes("content")),
        });
        match decoded {
            Ok(content) => Ok(Some(content)),
            Err(Damage::Version(version)) => Err(Error::new(
                ErrorCode::Incompatible,
                format!(
                    "`{}` has format version {version}, this build reads up to {}: open the store \
                     with a newer version",
                    path.display(),
                    self.version
                ),
            )),
            Err(Damage::Bytes(what)) => Err(Error::new(
                ErrorCode::Corrupt,
                format!("`{}` is damaged ({what}): restore the store", path.display()),
            )),
        }
    }

    /// Replaces the file. The outer error means that a sync failed and nothing is known; the inner
    /// one that the old file still stands.
    pub(crate) fn replace(
        &self,
        disk: &dyn Disk,
        root: &Path,
        body: &[u8],
    ) -> io::Result<io::Result<()>> {
        let temporary = root.join(self.temporary);
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(&self.magic);
        head[4..8].copy_from_slice(&self.version.to_le_bytes());
        head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
        let crc = checksum(&head[..12], body);
        head[12..].copy_from_slice(&crc.to_le_bytes());
        let file = match open_at_hand(disk, &temporary) {
            Ok(file) => file,
            Err(e) => return Ok(Err(e)),
        };
        let len = (HEAD_LEN + body.len()) as u64;
        let written = file
            .write_all_at(&[IoSlice::new(&head), IoSlice::new(body)], 0)
            .and_then(|()| if file.len()? > len { file.set_len(len) } else { Ok(()) });
        if let Err(e) = written {
            // Gives the space back at once: it may be what a trim needs to go on.
            let _ = disk.remove_file(&temporary);
            return Ok(Err(e));
        }
        match file.sync_data() {
            // Delayed allocation can find the disk full as late as here. The old one still stands.
            Err(e) if is_full(&e) => return Ok(Err(e)),
            other => other?,
        }
        disk.rename(&temporary, &root.join(self.name))?;
        disk.sync_dir(root)?;
        set_aside(disk, &temporary, len);
        Ok(Ok(()))
    }

    fn body<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Damage> {
        let (head, body) = bytes.split_at_checked(HEAD_LEN).ok_or(Damage::Bytes("cut short"))?;
        let int = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if head[..4] != self.magic {
            return Err(Damage::Bytes("something else"));
        }
        // Length and checksum come before the version: a flipped bit there is not a newer version.
        let body = body.get(..int(8) as usize).ok_or(Damage::Bytes("cut short"))?;
        if int(12) != checksum(&head[..12], body) {
            return Err(Damage::Bytes("checksum"));
        }
        match int(4) > self.version {
            true => Err(Damage::Version(int(4))),
            false => Ok(body),
        }
    }
}

/// The file that was set aside, or a new one.
fn open_at_hand(disk: &dyn Disk, temporary: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.open(temporary, OpenMode::Write) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => disk.open(temporary, OpenMode::Create),
        other => other,
    }
}

/// Takes the room for the next replacement now, so that it can be made on a full disk: a store that is
/// full has to start, to be trimmed.
fn set_aside(disk: &dyn Disk, temporary: &Path, len: u64) {
    let room = vec![0; (len * 2).next_multiple_of(PAGE).min(ROOM_MAX) as usize];
    let made = disk.open(temporary, OpenMode::Create);
    if made.and_then(|file| file.write_all_at(&[IoSlice::new(&room)], 0)).is_err() {
        // There is none. What stands has its own.
        let _ = disk.remove_file(temporary);
    }
}

enum Damage {
    Bytes(&'static str),
    Version(u32),
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(head);
    crc.update(body);
    crc.finish()
}
