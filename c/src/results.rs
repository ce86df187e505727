//! What operations give, in C's form. What it points to is kept by a handle, the result's `owner`.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use virtuallog_bindings as facade;
use virtuallog_bindings::{Life, MovePhase, Next, Step, TrimLimit};

use crate::call::Cross;
use crate::handles::{self, Held};
use crate::types::vlog_life::*;
use crate::types::vlog_move_phase::*;
use crate::types::vlog_trim_limit::*;
use crate::types::*;

/// Memory that a result points into.
pub struct Memory<T>(T);

// SAFETY: it is looked at by the program alone, and dropped once, on whichever thread: what is kept is
// strings, entries, and plain structs that point to these.
unsafe impl<T> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Memory<T> {}

impl<T: 'static> Held for Memory<T> {
    fn name() -> &'static str {
        "result"
    }
}

impl<T: 'static> Memory<T> {
    /// Keeps it until the handle that this gives is freed.
    pub fn keep(memory: T) -> u64 {
        handles::insert(Memory(memory))
    }
}

/// Text that ends where C thinks it does.
pub(crate) fn c_string(text: &str) -> CString {
    let bytes = text.bytes().map(|byte| if byte == 0 { b'?' } else { byte });
    CString::new(bytes.collect::<Vec<_>>()).expect("no byte of it is 0")
}

/// Strings and pointers that stay where they are while more are added.
#[derive(Default)]
struct Texts {
    texts: Vec<CString>,
    lists: Vec<Vec<*const c_char>>,
}

impl Texts {
    fn add(&mut self, text: &str) -> *const c_char {
        self.texts.push(c_string(text));
        // The bytes lie on the heap: they do not move when the vector grows.
        self.texts[self.texts.len() - 1].as_ptr()
    }

    /// A path's bytes as they are: it need not be UTF-8.
    fn add_path(&mut self, path: &Path) -> *const c_char {
        let bytes = path.as_os_str().as_bytes();
        self.texts.push(CString::new(bytes).expect("the system takes no path with a 0 in it"));
        self.texts[self.texts.len() - 1].as_ptr()
    }

    fn maybe(&mut self, text: Option<&str>) -> *const c_char {
        text.map_or(ptr::null(), |text| self.add(text))
    }

    fn list(&mut self, texts: &[String]) -> (*const *const c_char, usize) {
        let list: Vec<_> = texts.iter().map(|text| self.add(text)).collect();
        let given = (list.as_ptr(), list.len());
        self.lists.push(list);
        given
    }
}

impl Cross for facade::Tail {
    type C = vlog_tail;

    fn cross(self) -> vlog_tail {
        vlog_tail { position: self.position.0, sealed: self.sealed }
    }
}

impl Cross for facade::Trimmed {
    type C = vlog_trimmed;

    fn cross(self) -> vlog_trimmed {
        let limited_by = match self.limited_by {
            None => VLOG_TRIM_LIMIT_NONE,
            Some(TrimLimit::AlreadyTrimmed) => VLOG_TRIM_LIMIT_ALREADY_TRIMMED,
            Some(_) => VLOG_TRIM_LIMIT_TAIL,
        };
        vlog_trimmed { requested: self.requested.0, effective: self.effective.0, limited_by }
    }
}

impl Cross for Option<facade::Appended> {
    type C = vlog_appended;

    fn cross(self) -> vlog_appended {
        self.map_or(vlog_appended { first: 0, last: 0, count: 0 }, |appended| vlog_appended {
            first: appended.first.0,
            last: appended.last.0,
            count: appended.count,
        })
    }
}

impl Cross for Option<u64> {
    type C = vlog_resolved;

    fn cross(self) -> vlog_resolved {
        vlog_resolved { found: self.is_some(), position: self.unwrap_or_default() }
    }
}

impl Cross for facade::Batch {
    type C = vlog_batch;

    fn cross(self) -> vlog_batch {
        if self.is_empty() {
            return vlog_batch { owner: 0, entries: ptr::null(), len: 0 };
        }
        // What `Bytes` point to does not move when they do.
        let entry = |entry: &facade::Entry| vlog_entry {
            position: entry.position.0,
            data: entry.payload.as_ptr(),
            len: entry.payload.len(),
            written_at_micros: entry.written_at_micros,
        };
        let entries: Vec<vlog_entry> = self.iter().map(entry).collect();
        let (first, len) = (entries.as_ptr(), entries.len());
        vlog_batch { owner: Memory::keep((entries, self)), entries: first, len }
    }
}

impl Cross for Option<facade::Entry> {
    type C = vlog_batch;

    fn cross(self) -> vlog_batch {
        facade::Batch::from(Vec::from_iter(self)).cross()
    }
}

impl Cross for Vec<String> {
    type C = vlog_names;

    fn cross(self) -> vlog_names {
        let mut texts = Texts::default();
        let (names, len) = texts.list(&self);
        vlog_names { owner: Memory::keep(texts), names, len }
    }
}

impl vlog_chain {
    const NONE: vlog_chain = vlog_chain {
        owner: 0,
        log: ptr::null(),
        version: 0,
        segments: ptr::null(),
        segments_len: 0,
        next: ptr::null(),
        life: VLOG_LIFE_OPEN,
        moved_to: ptr::null(),
    };
}

impl Cross for facade::Chain {
    type C = vlog_chain;

    fn cross(self) -> vlog_chain {
        let mut texts = Texts::default();
        let mut segment = |segment: &facade::Segment| vlog_segment {
            index: segment.index,
            sealed: segment.stop.is_some(),
            start: segment.start.0,
            stop: segment.stop.map_or(0, u64::from),
            loglet: texts.add(&segment.config.name),
        };
        let segments: Vec<vlog_segment> = self.segments.iter().map(&mut segment).collect();
        let next = self.next.as_ref().map(|next| match next {
            Next::Extend { config, .. } => config.name.as_str(),
            Next::End => "end",
        });
        let (life, moved_to) = match &self.life {
            Life::Open => (VLOG_LIFE_OPEN, None),
            Life::Ended => (VLOG_LIFE_ENDED, None),
            Life::Moved { url } => (VLOG_LIFE_MOVED, Some(url.as_str())),
        };
        vlog_chain {
            log: texts.add(&self.log.to_string()),
            version: self.version,
            segments: segments.as_ptr(),
            segments_len: segments.len(),
            next: texts.maybe(next),
            life,
            moved_to: texts.maybe(moved_to),
            owner: Memory::keep((segments, texts)),
        }
    }
}

fn placement(place: Option<&facade::Placement>) -> vlog_placement {
    let none = vlog_placement { members: ptr::null(), members_len: 0, sequencer: 0 };
    place.map_or(none, |place| vlog_placement {
        members: place.members.as_ptr(),
        members_len: place.members.len(),
        sequencer: place.sequencer,
    })
}

impl Cross for facade::Plan {
    type C = vlog_plan;

    fn cross(self) -> vlog_plan {
        let mut texts = Texts::default();
        let (objections, objections_len) = texts.list(&self.objections);
        vlog_plan {
            version: self.version,
            from_loglet: texts.add(&self.from),
            to_loglet: texts.add(&self.to),
            seals_segment: self.seals_segment,
            tail: self.tail.0,
            bytes_to_move: self.bytes_to_move,
            objections,
            objections_len,
            before: placement(self.before.as_ref()),
            after: placement(self.after.as_ref()),
            owner: Memory::keep((texts, self)),
        }
    }
}

impl Cross for facade::VerifyReport {
    type C = vlog_report;

    fn cross(self) -> vlog_report {
        let mut texts = Texts::default();
        let (problems, problems_len) = texts.list(&self.problems);
        let (segments, entries, bytes) = (self.segments, self.entries, self.bytes);
        vlog_report { segments, entries, bytes, problems, problems_len, owner: Memory::keep(texts) }
    }
}

impl Cross for facade::ClusterInfo {
    type C = vlog_cluster;

    fn cross(self) -> vlog_cluster {
        let mut texts = Texts::default();
        let mut node = |node: &facade::NodeInfo| vlog_node {
            node: node.node,
            role_log: node.roles.log,
            role_sequencer: node.roles.sequencer,
            role_metastore: node.roles.metastore,
            metastore: self.metastore.contains(&node.node),
            alive: node.alive,
            draining: node.draining,
            sequences: node.sequences,
            address: texts.add(&node.address),
            zone: texts.add(&node.zone),
            storage: texts.add(&format!("{:032x}", node.storage)),
        };
        let nodes: Vec<vlog_node> = self.nodes.iter().map(&mut node).collect();
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        vlog_cluster {
            id: texts.add(&format!("{:032x}", self.id)),
            url: texts.add(&format!("virtuallog://{}/", addresses.join(","))),
            nodes: nodes.as_ptr(),
            nodes_len: nodes.len(),
            owner: Memory::keep((nodes, texts)),
        }
    }
}

impl Cross for Vec<facade::LocalNode> {
    type C = vlog_local_nodes;

    fn cross(self) -> vlog_local_nodes {
        let mut texts = Texts::default();
        let mut node = |node: &facade::LocalNode| vlog_local_node {
            node: node.node,
            pid: node.pid.unwrap_or(0),
            address: texts.add(&node.address),
            dir: texts.add_path(&node.directory),
        };
        let all: Vec<vlog_local_node> = self.iter().map(&mut node).collect();
        let (nodes, len) = (all.as_ptr(), all.len());
        vlog_local_nodes { owner: Memory::keep((all, texts)), nodes, len }
    }
}

impl Cross for Step {
    type C = vlog_move_step;

    fn cross(self) -> vlog_move_step {
        match self {
            Step::Done(chain) => vlog_move_step {
                phase: VLOG_MOVE_DONE,
                segments_done: 0,
                segments_total: 0,
                bytes_done: 0,
                chain: chain.cross(),
            },
            Step::Progress(step) => vlog_move_step {
                phase: match step.phase {
                    MovePhase::Engine => VLOG_MOVE_ENGINE,
                    MovePhase::Chain => VLOG_MOVE_CHAIN,
                    MovePhase::Copy => VLOG_MOVE_COPY,
                    _ => VLOG_MOVE_OTHER,
                },
                segments_done: step.segments_done,
                segments_total: step.segments_total,
                bytes_done: step.bytes_done,
                chain: vlog_chain::NONE,
            },
        }
    }
}
