//! Every input that a fuzzer ever kept, replayed: no promise is broken, and each target has a corpus.

use std::collections::BTreeSet;
use std::fs;

use virtuallog_fuzz::{TARGETS, corpus};

#[test]
fn no_input_of_the_corpus_breaks_a_promise() {
    for target in TARGETS {
        let text = fs::read_to_string(corpus::path(target.name)).expect("every target has one");
        let kept = corpus::parse(&text).unwrap_or_else(|line| {
            panic!("corpus/{}.hex line {line}: no hexadecimal", target.name);
        });
        assert_eq!(corpus::text(kept.clone()), text, "corpus/{}.hex is sorted", target.name);
        for (number, input) in kept.iter().enumerate() {
            eprintln!("{} line {}", target.name, number + 1);
            target.check(input);
        }
    }
}

#[test]
fn honest_bytes_are_taken() {
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}: begin with something", target.name);
        for (number, seed) in seeds.iter().enumerate() {
            eprintln!("{} seed {number}", target.name);
            target.check(seed);
        }
    }
}

#[test]
fn a_target_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names.len(), TARGETS.len());
    let folder = corpus::path("x").with_file_name("");
    for entry in fs::read_dir(folder).expect("the corpus is there") {
        let file = entry.expect("it can be listed").file_name().into_string().expect("ASCII");
        let name = file.strip_suffix(".hex").unwrap_or(&file);
        assert!(names.contains(name), "corpus/{file} belongs to no target");
    }
}

/// What is repeated, where it would cost the most memory. Messages of the MetaStore are pieces of an
/// input and shorter: `paxos_tests.rs` has their floods.
#[test]
fn no_flood_takes_much_memory() {
    let nested = |path: &[u8]| {
        let mut bytes = [path[path.len() - 1] << 3 | 2, 0].repeat(1 << 20);
        for field in path[..path.len() - 1].iter().rev() {
            let mut outer = vec![field << 3 | 2];
            let mut len = bytes.len();
            while len >= 0x80 {
                outer.push(len as u8 | 0x80);
                len >>= 7;
            }
            outer.push(len as u8);
            outer.extend(bytes);
            bytes = outer;
        }
        bytes
    };
    let target = |name| virtuallog_fuzz::target(name).expect("it is there");
    for path in [&[5][..], &[10], &[6, 1]] {
        target("chain").check(&nested(path));
    }
    for path in [&[4][..], &[5], &[6]] {
        target("registers").check(&nested(path));
    }
    let heads: [&[u8]; 6] = [&[1, 11, 3, 1], &[2, 8, 1], &[2, 10, 1], &[2, 11, 2], &[1], &[2]];
    for path in heads {
        target("message").check(&nested(path));
    }
}
