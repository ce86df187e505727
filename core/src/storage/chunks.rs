//! What reads take from files, in buffers that are used again.
//!
//! A fresh buffer costs more than what is read into it: the system hands out memory page by page, at
//! the first touch, and a catch-up read from the page cache then waits for that most of the time.
//! So buffers of the one size that catch-up reads use come back when the last batch that lies in
//! them is dropped, and a few are kept. All others are bought and thrown away.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::disk::{DiskFile, read_exact_at};

/// Bytes of a buffer that is used again.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// Buffers that wait for use, at most.
const FREE_MAX: usize = 8;

type Free = Arc<Mutex<Vec<Vec<u8>>>>;

/// The buffers of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks(Free);

/// One that is in use.
struct Chunk {
    bytes: Vec<u8>,
    home: Free,
}

impl Chunks {
    /// Reads `len` bytes from offset `at` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before, or what the disk said.
    pub(crate) fn read(&self, file: &dyn DiskFile, at: u64, len: usize) -> io::Result<Bytes> {
        let free = match len {
            CHUNK_BYTES => self.0.lock().expect("no panic under this lock").pop(),
            _ => None,
        };
        let mut bytes = free.unwrap_or_else(|| vec![0; len]);
        read_exact_at(file, &mut bytes, at)?;
        match len {
            CHUNK_BYTES => Ok(Bytes::from_owner(Chunk { bytes, home: Arc::clone(&self.0) })),
            _ => Ok(Bytes::from(bytes)),
        }
    }
}

#[cfg(test)]
impl Chunks {
    /// Buffers that wait for use.
    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().expect("no panic under this lock").len()
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut free = self.home.lock().expect("no panic under this lock");
        if free.len() < FREE_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
