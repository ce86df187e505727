//! What crosses the border: plain structs with the layout that C gives them, and the constants.
//!
//! `virtuallog.h` is made of this file and of the functions; its preamble, `header.h`, has the rules of
//! ownership. A struct that holds memory has a field `owner`, and everything that its pointers point to
//! lives until that is freed.

use std::ffi::c_char;

/// An open log.
pub type vlog_log = u64;
/// A range of a log that is read, or a log that is followed.
pub type vlog_reader = u64;
/// Many appends one after the other, with back-pressure.
pub type vlog_pipeline = u64;
/// Where operations that do not wait tell their outcome.
pub type vlog_queue = u64;
/// A server of a cluster, in this process.
pub type vlog_server = u64;
/// A log on its way to another store.
pub type vlog_move = u64;
/// A cluster of processes on this machine, for tests.
pub type vlog_local_cluster = u64;
/// What the library reports, on its way to the program's own logging.
pub type vlog_diagnostics = u64;

/// What a call came to. The numbers are stable.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum vlog_status {
    /// It was done; or, with a queue, a completion will tell.
    #[default]
    VLOG_OK = 0,
    /// The call itself is wrong: an argument, a URL, a name. Mend the call.
    VLOG_INVALID = 1,
    /// No such log, store or directory. Create it, or correct the name.
    VLOG_NOT_FOUND = 2,
    /// Another process owns the store. The message names its pid and the ways out.
    VLOG_LOCKED = 3,
    /// An entry or a batch is over its limit. Split it, or raise the limit where that is possible.
    VLOG_TOO_LARGE = 4,
    /// The position was trimmed away; `position` is the first that is kept.
    VLOG_TRIMMED = 5,
    /// The log was ended for good by `vlog_seal`. Read it; append to another.
    VLOG_SEALED = 6,
    /// Somebody else changed the chain first. Read it, decide again.
    VLOG_CONFLICT = 7,
    /// The window of entries in flight is full. Wait for some of them.
    VLOG_BUSY = 8,
    /// The part that would answer is not to be reached or was stopped.
    VLOG_UNAVAILABLE = 9,
    /// The call's time ran out. For an append see `in_doubt`.
    VLOG_DEADLINE = 10,
    /// Stored bytes fail their checks. Nothing was served in their place, nothing was cut away.
    VLOG_CORRUPT = 11,
    /// The disk is full. Trim, or make room; nothing was lost.
    VLOG_DISK_FULL = 12,
    /// Written by a version, or of a kind, that this build does not know.
    VLOG_INCOMPATIBLE = 13,
    /// Something acknowledged is not there any more. Restore it before going on.
    VLOG_DATA_LOSS = 14,
    /// The handle was closed or freed, or made before a fork. Open another.
    VLOG_CLOSED = 15,
    /// A bug of this library. Please report it.
    VLOG_INTERNAL = 16,
}

/// For `timeout_ms`: no deadline.
pub const VLOG_FOREVER: i64 = -1;
/// For `vlog_subscribe`: from the first position that was not trimmed.
pub const VLOG_FIRST: u64 = 0xFFFF_FFFF_FFFF_FFFF;
/// For `vlog_subscribe`: entries to come. As the end of a read: up to the tail as checked at the call.
pub const VLOG_TAIL: u64 = 0xFFFF_FFFF_FFFF_FFFE;
/// For `if_version`: the chain as this handle saw it last.
pub const VLOG_LAST_SEEN: u64 = 0xFFFF_FFFF_FFFF_FFFF;

/// What went wrong. Filled where a call is given one and does not return `VLOG_OK`; set to zero where
/// it does.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_error {
    /// What `message`, `token` and `causes` belong to: `vlog_free` it.
    pub owner: u64,
    /// What to branch on.
    pub status: vlog_status,
    /// Whether the same call may succeed later. Never true for an outcome in doubt.
    pub retryable: bool,
    /// True when an append may or may not be in the log: `vlog_resolve` its token.
    pub in_doubt: bool,
    /// Whether `position` says something.
    pub has_position: bool,
    /// The position that the error speaks of: for `VLOG_TRIMMED` the first one kept.
    pub position: u64,
    /// A sentence that says what to do.
    pub message: *const c_char,
    /// Names the append in doubt. NULL: none.
    pub token: *const c_char,
    /// The causes, outermost first, a line each. NULL: none.
    pub causes: *const c_char,
}

/// How a call is made. NULL, or all zero: the call waits, as long as the handle's own deadline says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_call {
    /// Milliseconds that it may take. 0: the handle's own deadline, 10 s unless `vlog_open` or the URL
    /// said otherwise. `VLOG_FOREVER`: none.
    pub timeout_ms: i64,
    /// 0: the call waits. A queue: it returns at once, and that queue tells the outcome. What the call
    /// is given to write its result to is written by `vlog_queue_next` and has to live until then.
    pub queue: vlog_queue,
    /// Comes back in the completion: a number or a pointer of yours.
    pub context: u64,
    /// Where not NULL, gets the operation's number in its queue, for `vlog_queue_cancel`.
    pub id: *mut u64,
}

/// The outcome of an operation that did not wait.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_completion {
    /// The operation's `vlog_call.context`.
    pub context: u64,
    /// Where the result is one number: the position, or the handle. Else 0.
    pub value: u64,
    /// What it came to.
    pub status: vlog_status,
    /// Where that is not `VLOG_OK`: `vlog_free` its owner.
    pub error: vlog_error,
}

/// Bytes to append. Copied during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_slice {
    /// May be NULL where `len` is 0.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

/// How to open a log. NULL, or all zero: by default, as the URL says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_options {
    /// Fail with `VLOG_NOT_FOUND` rather than create a log.
    pub no_create: bool,
    /// Open a `file:` log beside its owner in another process, without lock and without any write.
    pub read_only: bool,
    /// What the first segment of a log that is created is kept in. NULL: the store's default.
    pub loglet: *const c_char,
    /// The default deadline of each call, in milliseconds, and that of opening. 0: 10 s.
    /// `VLOG_FOREVER`: none.
    pub timeout_ms: i64,
    /// The limit on one entry, in bytes. 0: 1 MiB; at most 16 MiB.
    pub entry_bytes_max: usize,
    /// The limit on what is submitted and not answered, in bytes. 0: 32 MiB.
    pub in_flight_bytes_max: usize,
}

/// Where a log ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_tail {
    /// The first unwritten position.
    pub position: u64,
    /// True when nothing can be appended any more.
    pub sealed: bool,
}

/// Why a trim kept another position than it was asked to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum vlog_trim_limit {
    /// It did not.
    VLOG_TRIM_LIMIT_NONE = 0,
    /// Nothing beyond the tail can be trimmed.
    VLOG_TRIM_LIMIT_TAIL = 1,
    /// More than was asked had been trimmed before.
    VLOG_TRIM_LIMIT_ALREADY_TRIMMED = 2,
}

/// What a trim did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_trimmed {
    /// The first position to keep, as asked.
    pub requested: u64,
    /// The first position that is kept.
    pub effective: u64,
    /// Why `effective` is not `requested`.
    pub limited_by: vlog_trim_limit,
}

/// What a pipeline put into the log. Other writers' entries may lie in between.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_appended {
    /// Position of the first entry. Says nothing where `count` is 0.
    pub first: u64,
    /// Position of the last entry.
    pub last: u64,
    /// How many entries.
    pub count: u64,
}

/// What became of an append in doubt.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_resolved {
    /// False: it is surely not in the log and never will be.
    pub found: bool,
    /// Where it is.
    pub position: u64,
}

/// An entry of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_entry {
    /// Positions strictly increase from entry to entry and may skip.
    pub position: u64,
    /// The payload, where it was read to: nothing was copied. Never NULL.
    pub data: *const u8,
    /// Its length in bytes.
    pub len: usize,
    /// The writer's clock in microseconds since 1970 (UTC). Information only.
    pub written_at_micros: i64,
}

/// Entries that follow each other in the log.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_batch {
    /// `vlog_free` it, from any thread, when the entries are not needed any more.
    pub owner: u64,
    /// So many of them as `len` says.
    pub entries: *const vlog_entry,
    /// 0: the end of what is read; for `vlog_read_next`: there is none.
    pub len: usize,
}

/// Names, sorted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_names {
    /// `vlog_free` it.
    pub owner: u64,
    /// So many of them as `len` says.
    pub names: *const *const c_char,
    /// How many.
    pub len: usize,
}

/// A range of the log's positions, and the loglet that holds it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_segment {
    /// The segment's identity, never used again.
    pub index: u32,
    /// Whether `stop` says something: nothing can be appended to it any more.
    pub sealed: bool,
    /// The first position.
    pub start: u64,
    /// The position after the last.
    pub stop: u64,
    /// What holds it, as users write it, for example `local`.
    pub loglet: *const c_char,
}

/// Whether a log can go on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum vlog_life {
    /// It can.
    VLOG_LIFE_OPEN = 0,
    /// It was sealed.
    VLOG_LIFE_ENDED = 1,
    /// It lives in another store now.
    VLOG_LIFE_MOVED = 2,
}

/// Which loglet holds which positions of a log, at one version.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_chain {
    /// `vlog_free` it.
    pub owner: u64,
    /// The log's identity: 32 hexadecimal digits, drawn when it was created.
    pub log: *const c_char,
    /// What to pass as `if_version`.
    pub version: u64,
    /// In order, contiguous, never empty; the last one is the active one.
    pub segments: *const vlog_segment,
    /// How many.
    pub segments_len: usize,
    /// The loglet of a reconfiguration that was begun and not completed; `end` for a seal. NULL: none.
    pub next: *const c_char,
    /// Whether the log can go on.
    pub life: vlog_life,
    /// Where a moved log lives now. NULL: here.
    pub moved_to: *const c_char,
}

/// The nodes of a cluster that a loglet is on. It goes on as long as a majority of them does.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_placement {
    /// Numbers of the nodes that hold it. NULL: it is on no nodes.
    pub members: *const u32,
    /// How many.
    pub members_len: usize,
    /// Number of the one that gives its positions.
    pub sequencer: u32,
}

/// What a `vlog_reconfig_extend` would do.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_plan {
    /// `vlog_free` it.
    pub owner: u64,
    /// The chain version that it speaks of: pass it as `if_version` to do exactly this.
    pub version: u64,
    /// The active loglet.
    pub from_loglet: *const c_char,
    /// The loglet to come, with all that was left to defaults written out.
    pub to_loglet: *const c_char,
    /// Index of the segment that would be sealed.
    pub seals_segment: u32,
    /// The tail at the time of planning: the boundary will be here or later.
    pub tail: u64,
    /// None have to be moved for an extend.
    pub bytes_to_move: u64,
    /// What stands against it, in sentences. None: it can be done.
    pub objections: *const *const c_char,
    /// How many.
    pub objections_len: usize,
    /// Where the active loglet is.
    pub before: vlog_placement,
    /// Where the loglet to come would be, as things are now.
    pub after: vlog_placement,
}

/// What a verification found.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_report {
    /// `vlog_free` it.
    pub owner: u64,
    /// Segments looked at.
    pub segments: u64,
    /// Entries read, each with a right checksum.
    pub entries: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// What is wrong, in sentences that name segment and position. None: all is well.
    pub problems: *const *const c_char,
    /// How many.
    pub problems_len: usize,
}

/// How to run a server. All zero but `data`: by default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_server_config {
    /// Its directory, made if its parent is there. Belongs to one server at a time (`VLOG_LOCKED`), and
    /// to its node of its cluster for good.
    pub data: *const c_char,
    /// `HOST:PORT`; port 0 is a free one. NULL: `127.0.0.1:0`.
    pub listen: *const c_char,
    /// `HOST:PORT` by which others reach it. NULL: the one that it listens on.
    pub advertise: *const c_char,
    /// Where it stands; replicas are spread over zones. NULL: nowhere in particular.
    pub zone: *const c_char,
    /// What it does: some of `log,sequencer,metastore`. NULL: all.
    pub roles: *const c_char,
    /// Addresses of a cluster to join while its directory belongs to none.
    pub join: *const *const c_char,
    /// How many.
    pub join_len: usize,
    /// Allows an address that other machines reach: connections are not encrypted.
    pub insecure: bool,
}

/// A node of a `vlog_local_cluster`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_local_node {
    /// Its number, from 1 on: what `vlog_local_cluster_stop` and `vlog_local_cluster_restart` take.
    pub node: u32,
    /// The number of its process; 0 while it is stopped.
    pub pid: u32,
    /// `HOST:PORT`, the same whenever it runs.
    pub address: *const c_char,
    /// Its directory.
    pub dir: *const c_char,
}

/// The nodes of a `vlog_local_cluster`, by number, those that were stopped too.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_local_nodes {
    /// `vlog_free` it.
    pub owner: u64,
    /// So many of them as `len` says.
    pub nodes: *const vlog_local_node,
    /// How many.
    pub len: usize,
}

/// A node of a cluster.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_node {
    /// Its number, never given again.
    pub node: u32,
    /// Whether it holds logs.
    pub role_log: bool,
    /// Whether it gives positions.
    pub role_sequencer: bool,
    /// Whether it may hold the chains.
    pub role_metastore: bool,
    /// Whether it is one of those that hold the chains now.
    pub metastore: bool,
    /// Whether it answers.
    pub alive: bool,
    /// Whether nothing new is placed on it.
    pub draining: bool,
    /// How many loglets it gives positions for; 0 when it does not answer.
    pub sequences: u32,
    /// Where it is reached, `HOST:PORT`.
    pub address: *const c_char,
    /// Where it stands. May be empty.
    pub zone: *const c_char,
    /// The identity of its disk: 32 hexadecimal digits.
    pub storage: *const c_char,
}

/// A cluster, as one of its nodes sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_cluster {
    /// `vlog_free` it.
    pub owner: u64,
    /// Its identity: 32 hexadecimal digits.
    pub id: *const c_char,
    /// Its store, by the addresses of all its nodes: add a log's name to open one.
    pub url: *const c_char,
    /// Its nodes, by number.
    pub nodes: *const vlog_node,
    /// How many.
    pub nodes_len: usize,
}

/// What a move is at.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum vlog_move_phase {
    /// The log goes over to an engine of the destination.
    VLOG_MOVE_ENGINE = 0,
    /// Its chain goes there.
    VLOG_MOVE_CHAIN = 1,
    /// It lives there already, and what was left behind is copied.
    VLOG_MOVE_COPY = 2,
    /// It has arrived: `chain` is its chain there.
    VLOG_MOVE_DONE = 3,
    /// Something that this build has no name for.
    VLOG_MOVE_OTHER = 4,
}

/// How far a log has come on its way to another store.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_move_step {
    /// What it is at.
    pub phase: vlog_move_phase,
    /// Sealed segments that were copied.
    pub segments_done: usize,
    /// Sealed segments that are to be copied, those included.
    pub segments_total: usize,
    /// Bytes that were copied, with what frames them.
    pub bytes_done: u64,
    /// Once it has arrived; all zero before. `vlog_free` its owner.
    pub chain: vlog_chain,
}

/// How severe a report is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum vlog_level {
    /// Something is lost or stays broken unless somebody acts.
    VLOG_LEVEL_ERROR = 1,
    /// Something went wrong and is being mended.
    VLOG_LEVEL_WARN = 2,
    /// What an operator wants to have read afterwards.
    VLOG_LEVEL_INFO = 3,
    /// What the library does.
    VLOG_LEVEL_DEBUG = 4,
    /// And how.
    VLOG_LEVEL_TRACE = 5,
}

/// One report.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_diagnostic {
    /// How severe it is.
    pub level: vlog_level,
    /// The part that speaks, such as "virtuallog::server::heal".
    pub target: *const c_char,
    /// What it says.
    pub message: *const c_char,
}

/// Reports, in the order in which they were made.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct vlog_diagnostic_batch {
    /// `vlog_free` it.
    pub owner: u64,
    /// So many of them as `len` says.
    pub records: *const vlog_diagnostic,
    /// 0: the time ran out first.
    pub len: usize,
    /// How many more there were since the last batch, for which there was no room.
    pub dropped: u64,
}
