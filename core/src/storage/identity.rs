//! Whose disk this is, and what it remembers of other disks.
//!
//! A server's directory says of which cluster and node it is, so that one that was put into the wrong
//! machine is recognized before it answers anything. And it remembers the highest generation that
//! each other disk showed: a disk that comes back with a lower one is an older image of itself, has
//! forgotten what it acknowledged, and must not vote until it was told.
//!
//! Both stand in one small file, which is replaced as a whole and is not there in a store that no
//! server uses. What follows from them is decided by the server and not here. Bytes are in
//! `FORMAT.md`.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;

use super::Storage;
use super::disk::Disk;
use super::error::{StorageError, io_error};
use super::whole::Whole;
use crate::error::{Error, ErrorCode};

/// Other disks of which something is remembered, at most.
pub(crate) const PEERS_MAX: usize = 4096;

const FILE: Whole =
    Whole { name: "identity", temporary: "identity.new", magic: *b"VLI\x01", version: 1 };
/// The names that stand for it in the store's directory.
pub(crate) const NAMES: [&str; 2] = [FILE.name, FILE.temporary];

/// Of which server a store is the disk. Written once, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, a number drawn when it was made.
    pub cluster: u128,
    /// The node, a number within the cluster.
    pub node: u32,
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    identity: Option<Identity>,
    /// Highest generation by node and storage id: a node that got another disk is another one here,
    /// and its old disk may come back.
    pub(crate) peers: BTreeMap<(u32, u128), u64>,
}

impl Storage {
    /// Of which server this is the disk; `None` as long as nobody said.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.remembered().identity
    }

    /// Says of which server this is the disk, durably. Saying the same again is fine. Blocks.
    ///
    /// # Errors
    /// `INCOMPATIBLE` when it is another one's; `DISK_FULL`; or what stopped the store.
    pub fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        self.remember(|remembered| match remembered.identity {
            None => {
                remembered.identity = Some(identity);
                Ok(())
            }
            Some(known) if known == identity => Ok(()),
            Some(known) => Err(Error::new(ErrorCode::Incompatible, format!(
                "`{}` belongs to node {} of cluster {:032x} and not to node {} of cluster {:032x}: \
                 start that node here, or choose another directory",
                self.inner.root.display(),
                known.node,
                known.cluster,
                identity.node,
                identity.cluster
            ))),
        })
    }

    /// Notes the generation that another server's disk showed, and gives the highest that it ever
    /// showed here, this one included: when that is higher than what it shows now, the disk has
    /// forgotten something. Durable before it returns; a generation of 0 asks and notes nothing.
    /// Blocks.
    ///
    /// # Errors
    /// `INVALID` when it would be more disks than can be remembered; `DISK_FULL`; or what stopped the
    /// store. The generation is not remembered then.
    pub fn remember_peer(
        &self,
        node: u32,
        storage_id: u128,
        generation: u64,
    ) -> Result<u64, Error> {
        self.remember(|remembered| {
            let known = remembered.peers.get(&(node, storage_id)).copied();
            if generation > 0 && known.is_none() && remembered.peers.len() >= PEERS_MAX {
                return Err(Error::invalid(format!(
                    "{PEERS_MAX} disks of other nodes are remembered already: something makes up \
                     storage ids"
                )));
            }
            let highest = known.unwrap_or(0).max(generation);
            if highest > 0 {
                remembered.peers.insert((node, storage_id), highest);
            }
            Ok(highest)
        })
    }

    /// Changes what is remembered, in the file and then in memory.
    fn remember<T>(
        &self,
        change: impl FnOnce(&mut Remembered) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let inner = &self.inner;
        inner.check_open()?;
        let mut remembered = self.remembered();
        let mut next = remembered.clone();
        let answer = change(&mut next)?;
        if next == *remembered {
            return Ok(answer);
        }
        let path = inner.root.join(FILE.name);
        match FILE.replace(inner.disk.as_ref(), &inner.root, &next.encode()) {
            Ok(Ok(())) => *remembered = next,
            Ok(Err(e)) => return Err(io_error("replace", &path, e)),
            Err(e) => {
                return Err(StorageError::Poisoned(inner.poison.set("replace", &path, e)).into());
            }
        }
        Ok(answer)
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.inner.remembered.lock().expect("no panic under this lock")
    }
}

impl Remembered {
    /// What the store in `root` remembers.
    ///
    /// # Errors
    /// `CORRUPT`, `INCOMPATIBLE`, or what the disk said.
    pub(crate) fn read(disk: &dyn Disk, root: &Path) -> Result<Remembered, Error> {
        Ok(FILE.read(disk, root, Self::decode)?.unwrap_or_default())
    }

    fn encode(&self) -> Vec<u8> {
        let peers = self.peers.iter().map(|((node, storage_id), generation)| WirePeer {
            node: *node,
            storage_id: storage_id.to_le_bytes().to_vec(),
            generation: *generation,
        });
        let cluster = self.identity.map(|of| of.cluster.to_le_bytes().to_vec());
        let node = self.identity.map_or(0, |of| of.node);
        Wire { cluster, node, peers: peers.collect() }.encode_to_vec()
    }

    fn decode(body: &[u8]) -> Option<Remembered> {
        let id = |bytes: Vec<u8>| Some(u128::from_le_bytes(bytes.try_into().ok()?));
        let wire = Wire::decode(body).ok()?;
        let identity = match wire.cluster {
            Some(cluster) => Some(Identity { cluster: id(cluster)?, node: wire.node }),
            None => None,
        };
        let peers = wire.peers.into_iter();
        let peers = peers.map(|peer| Some(((peer.node, id(peer.storage_id)?), peer.generation)));
        Some(Remembered { identity, peers: peers.collect::<Option<_>>()? })
    }
}

#[derive(Clone, PartialEq, Message)]
struct Wire {
    #[prost(bytes = "vec", optional, tag = "1")]
    cluster: Option<Vec<u8>>,
    #[prost(uint32, tag = "2")]
    node: u32,
    #[prost(message, repeated, tag = "3")]
    peers: Vec<WirePeer>,
}

#[derive(Clone, PartialEq, Message)]
struct WirePeer {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(bytes = "vec", tag = "2")]
    storage_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    generation: u64,
}
