//! Every order in which a few servers can do Paxos, over the very structs that production runs.
//!
//! A breadth-first search. The network is a set of requests that only grows, so that each may be
//! lost, late, doubled and overtaken; an answer arrives at once or never, which loses no behaviour
//! but late answers to an attempt that is over, and those come of doubled requests. A crash takes
//! back everything that was not synced. Clients stop at any time, and may use ballots that were used
//! before. What is looked for: two values in one instance, a put that succeeded and is not there, two
//! that both replaced one version, a read that shows less than somebody was shown before it began.
//!
//! A scenario is small enough to be searched to its end. Each planted bug has to be found by one.

mod search;

use virtuallog_protocol::paxos::{Bug, Planted};

use self::search::{Op, Scenario, Search, member, put};

fn scenario(name: &'static str, clients: Vec<(u32, u8, Vec<Op>)>) -> Scenario {
    Scenario {
        name,
        members: vec![1, 2, 3],
        slots: 3,
        clients,
        crashes: 0,
        forgets: 0,
        replacements: 0,
        planted: Planted::NONE,
    }
}

fn writers() -> Scenario {
    let clients = vec![(11, 2, vec![put(1, 0)]), (12, 1, vec![put(2, 0)])];
    Scenario { crashes: 1, ..scenario("two writers, two ballots and one, one crash", clients) }
}

fn one_name() -> Scenario {
    let clients = vec![(11, 2, vec![put(1, 0)]), (11, 2, vec![put(2, 0)])];
    scenario("two lives of one proposer, which use the same ballots", clients)
}

fn one_after_the_other() -> Scenario {
    let clients = vec![(11, 2, vec![put(1, 0), put(3, 1)]), (12, 1, vec![put(2, 1)])];
    scenario("two instances", clients)
}

fn reads() -> Scenario {
    let clients = vec![(11, 1, vec![put(1, 0)]), (12, 1, vec![Op::Read, Op::Read])];
    scenario("a writer, and one who reads twice", clients)
}

fn reads_and_a_crash() -> Scenario {
    let clients = vec![(11, 1, vec![put(1, 0)]), (12, 0, vec![Op::Read])];
    Scenario { crashes: 1, ..scenario("a writer, a reader, one crash", clients) }
}

fn two_readers() -> Scenario {
    let clients = vec![(11, 1, vec![put(1, 0)]), (12, 0, vec![Op::Read]), (13, 0, vec![Op::Read])];
    scenario("a writer and two readers", clients)
}

fn amnesia() -> Scenario {
    let clients = vec![(11, 1, vec![put(1, 0)]), (12, 1, vec![put(2, 0)])];
    Scenario { forgets: 1, ..scenario("two writers, an old image of a disk", clients) }
}

fn blank_disk() -> Scenario {
    let clients = vec![(11, 1, vec![put(1, 0)]), (12, 1, vec![put(2, 0)])];
    Scenario { replacements: 1, ..scenario("two writers, a blank disk", clients) }
}

fn members() -> Scenario {
    let change = Op::Members(vec![member(2), member(3), member(4)]);
    let clients = vec![(11, 1, vec![change]), (12, 1, vec![put(1, 0)])];
    Scenario { slots: 4, ..scenario("a writer while one of three members is replaced", clients) }
}

fn only_member() -> Scenario {
    let change = Op::Members(vec![member(2)]);
    let clients = vec![(11, 2, vec![change, put(1, 0)]), (12, 2, vec![put(2, 0), Op::Read])];
    let (members, slots, crashes) = (vec![1], 2, 1);
    let scenario = scenario("a writer while the only member is replaced, one crash", clients);
    Scenario { members, slots, crashes, ..scenario }
}

fn safe(scenario: Scenario) {
    Search::run(scenario).expect("safe");
}

fn finds(bug: Bug, scenario: Scenario, broken: &str) {
    let planted = Planted::NONE.with(bug);
    let found = Search::run(Scenario { planted, ..scenario }).expect_err("found");
    assert!(found.contains(broken), "{bug:?} broke something else: {found}");
}

#[test]
fn two_writers_agree() {
    safe(writers());
}

#[test]
fn a_proposer_that_forgot_its_ballots_is_harmless() {
    safe(one_name());
}

#[test]
fn instances_follow_one_another() {
    safe(one_after_the_other());
}

#[test]
fn reads_never_go_back() {
    safe(reads());
    safe(reads_and_a_crash());
    safe(two_readers());
}

#[test]
fn a_disk_that_forgot_does_no_harm() {
    safe(amnesia());
    safe(blank_disk());
}

#[test]
fn members_are_replaced_under_a_writer() {
    safe(members());
    safe(only_member());
}

#[test]
fn finds_a_promise_that_is_not_persisted() {
    finds(Bug::PromiseNotPersisted, writers(), "decided twice");
}

#[test]
fn finds_a_vote_that_is_not_persisted() {
    finds(Bug::AcceptNotPersisted, writers(), "decided twice");
}

#[test]
fn finds_an_amnesiac_that_votes() {
    finds(Bug::AmnesiacVotes, amnesia(), "decided twice");
}

#[test]
fn finds_a_vote_of_a_disk_that_is_no_member() {
    finds(Bug::StrangerVotes, blank_disk(), "decided twice");
}

#[test]
fn finds_two_memberships_at_once() {
    finds(Bug::TwoMemberships, members(), "decided twice");
}

#[test]
fn finds_a_value_that_is_not_adopted() {
    finds(Bug::ValueNotAdopted, writers(), "decided twice");
}

#[test]
fn finds_a_minority_that_decides() {
    finds(Bug::MinoritySuffices, writers(), "decided twice");
}

#[test]
fn finds_a_read_from_one() {
    finds(Bug::ReadFromOne, reads(), "was read after");
}

#[test]
fn finds_a_read_that_overlooks_what_was_accepted() {
    finds(Bug::ReadIgnoresAccepted, reads(), "was read after");
}

#[test]
fn finds_a_plain_put() {
    finds(Bug::PlainPut, writers(), "replaced twice");
}
