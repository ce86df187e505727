//! The targets: one table, and a file for each family of formats.

mod chain;
mod paxos;
mod records;
mod store;
mod text;

use virtuallog::testing::hostile;

use crate::Target;

/// What a decoder of small things may take: a fuzzer's own inputs are smaller than this.
const SMALL: (usize, usize) = (1 << 20, 64);

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "frame",
        run: hostile::frames,
        seeds: hostile::whole_frames,
        // A frame that is on its way has its room already, and its first bytes are copied there.
        memory: (ALLOCATION_OF_A_FRAME, 64),
        len_max: 2048,
    },
    Target {
        name: "message",
        run: hostile::message,
        seeds: hostile::messages,
        memory: (8 << 20, 16),
        len_max: 1024,
    },
    Target {
        name: "batch",
        run: records::batch,
        seeds: records::batches,
        memory: SMALL,
        len_max: 1024,
    },
    Target {
        name: "stamp",
        run: records::stamp,
        seeds: records::stamps,
        memory: SMALL,
        len_max: 1024,
    },
    Target { name: "chain", run: chain::chain, seeds: chain::chains, memory: SMALL, len_max: 1024 },
    Target {
        name: "paxos",
        run: paxos::messages,
        seeds: paxos::conversations,
        memory: (16 << 20, 64),
        len_max: 2048,
    },
    Target {
        name: "registers",
        run: paxos::registers,
        seeds: paxos::snapshots,
        memory: (2 << 20, 64),
        len_max: 1024,
    },
    Target {
        name: "acceptor",
        run: paxos::acceptor_file,
        seeds: paxos::files,
        memory: (2 << 20, 64),
        len_max: 2048,
    },
    Target {
        name: "manifest",
        run: store::manifest,
        seeds: store::manifests,
        memory: (2 << 20, 64),
        len_max: 1024,
    },
    Target {
        name: "identity",
        run: store::identity,
        seeds: store::identities,
        memory: (2 << 20, 64),
        len_max: 512,
    },
    Target {
        name: "journal",
        run: store::journal,
        seeds: store::journals,
        memory: (4 << 20, 64),
        len_max: 4096,
    },
    Target {
        name: "directory",
        run: store::directory,
        seeds: store::edits,
        memory: (4 << 20, 64),
        len_max: 256,
    },
    Target {
        name: "register",
        run: store::register,
        seeds: store::register_files,
        memory: (2 << 20, 64),
        len_max: 512,
    },
    Target { name: "url", run: text::url, seeds: text::urls, memory: SMALL, len_max: 256 },
    Target {
        name: "config",
        run: text::config,
        seeds: text::configs,
        memory: (4 << 20, 1024),
        len_max: 512,
    },
    Target {
        name: "entries",
        run: virtuallog_server::hostile::entries,
        seeds: text::lines,
        memory: (1 << 20, 256),
        len_max: 512,
    },
    Target { name: "grpc", run: text::grpc, seeds: text::requests, memory: SMALL, len_max: 512 },
];

/// Twice a frame and a little.
const ALLOCATION_OF_A_FRAME: usize = 48 << 20;

/// Input as a list: pieces with two bytes of length before each, the last one what is left.
fn pieces(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    while let Some((len, rest)) = input.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len)).min(rest.len());
        let (piece, behind) = rest.split_at(len);
        pieces.push(piece);
        input = behind;
    }
    pieces
}

/// The input whose [`pieces`] these are.
fn joined<T: AsRef<[u8]>>(pieces: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut input = Vec::new();
    for piece in pieces {
        let piece = piece.as_ref();
        let len = u16::try_from(piece.len()).expect("pieces of seeds are short");
        input.extend_from_slice(&len.to_le_bytes());
        input.extend_from_slice(piece);
    }
    input
}
