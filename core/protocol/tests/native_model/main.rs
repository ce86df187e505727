//! NativeLoglet, model checked: every state of small worlds made of the very cores.
//!
//! It passes as it is, and finds each mistake that is planted, one test each, named after the rule of
//! `spec/delos.md` section 4.5 or of `spec/reliability.md` section 5.3 that it breaks. The worlds are
//! kept small so that all of them take seconds: mistakes show in small worlds.

mod search;
mod world;

use virtuallog_protocol::planted::{Bug, Planted};

use search::{Found, search};
use world::{Action, Ask, Mistake, World};

const SEAL: Ask = Ask::Seal;
const TAIL: Ask = Ask::Tail;
/// States that are looked at where there are too many.
const NEAREST: usize = 300_000;

fn world(positions: u8, clients: &[Ask]) -> World {
    let clients = clients.to_vec();
    World {
        positions,
        clients,
        amnesia: false,
        quiet: false,
        planted: Planted::NONE,
        mistake: None,
    }
}

fn run(name: &str, world: &World, states_max: usize) -> Found<Action> {
    let start = std::time::Instant::now();
    let found = search(world, world.start(), states_max);
    let extent = if found.all { "all" } else { "the nearest" };
    println!("{name}: {extent} {} states {:?}", found.states, start.elapsed());
    if let Some((invariant, steps)) = &found.broken {
        println!("  {invariant}, after {} steps: {steps:?}", steps.len());
    }
    found
}

/// No invariant breaks in any state.
fn holds(name: &str, world: &World) {
    let found = run(name, world, usize::MAX);
    assert!(found.broken.is_none() && found.all, "{name}: {found:?}");
}

/// No invariant breaks in the nearest states.
fn holds_within(name: &str, world: &World, states_max: usize) {
    let found = run(name, world, states_max);
    assert!(found.broken.is_none(), "{name}: {found:?}");
}

/// The first invariant that breaks is `invariant`.
fn breaks(world: &World, invariant: &str) {
    let found = run(invariant, world, 4_000_000);
    let broken = found.broken.map(|(invariant, _)| invariant);
    assert_eq!(broken, Some(invariant), "in {} states", found.states);
}

fn planted(bug: Bug, positions: u8, clients: &[Ask], invariant: &str) {
    let world = World { planted: Planted::NONE.with(bug), ..world(positions, clients) };
    breaks(&world, invariant);
}

fn mistake(mistake: Mistake, positions: u8, clients: &[Ask], invariant: &str) {
    breaks(&World { mistake: Some(mistake), ..world(positions, clients) }, invariant);
}

const BELOW: &str = "a tail is below an acknowledged append";
const SHOWN: &str = "a shown tail is above the boundary";
const KNOWN: &str = "a known tail is above the boundary";
const SEALED_MINORITY: &str = "a sealed prefix is on a minority";
const ACKED_MINORITY: &str = "an acknowledged append is on a minority";
const TWO_VALUES: &str = "two values are at one position";
const REWRITTEN: &str = "a boundary in the chain changed";

#[test]
fn a_reconfigurer_and_a_tail_check() {
    holds("seal, tail", &world(1, &[SEAL, TAIL]));
}

#[test]
fn two_reconfigurers() {
    holds("seal, seal", &world(1, &[SEAL, SEAL]));
}

#[test]
fn two_reconfigurers_and_a_server_that_forgot() {
    holds("seal, seal, amnesia", &World { amnesia: true, ..world(1, &[SEAL, SEAL]) });
}

#[test]
fn two_tail_checks() {
    holds("tail, tail", &world(1, &[TAIL, TAIL]));
}

#[test]
fn two_positions_and_a_reconfigurer() {
    holds("2 positions, seal", &world(2, &[SEAL]));
}

#[test]
fn two_positions_and_two_callers() {
    holds_within("2 positions, seal, seal", &world(2, &[SEAL, SEAL]), NEAREST);
    holds_within("2 positions, seal, tail", &world(2, &[SEAL, TAIL]), NEAREST);
}

#[test]
fn three_callers_one_of_them_stale() {
    holds_within("seal, seal, tail", &world(1, &[SEAL, SEAL, TAIL]), NEAREST);
    holds_within("seal, tail, tail", &world(1, &[SEAL, TAIL, TAIL]), NEAREST);
}

#[test]
fn a_tail_check_and_a_server_that_forgot() {
    let world = World { amnesia: true, ..world(1, &[SEAL, TAIL]) };
    holds_within("seal, tail, amnesia", &world, NEAREST);
}

#[test]
fn n1_a_check_that_trusts_a_known_tail_which_a_repair_raised() {
    let planted = Planted::NONE.with(Bug::TrustsKnownTail);
    let mistake = Some(Mistake::RepairRaisesKnownTail);
    breaks(&World { planted, mistake, quiet: true, ..world(1, &[SEAL, SEAL, TAIL]) }, SHOWN);
}

#[test]
fn n2_a_sealed_server_takes_a_duplicate() {
    planted(Bug::SealedTakesDuplicate, 1, &[SEAL, SEAL], BELOW);
}

#[test]
fn n3_the_sequencer_counts_sealed_servers() {
    planted(Bug::CountsSealed, 1, &[SEAL, SEAL], BELOW);
}

#[test]
fn n4_a_seal_overtakes_an_append() {
    mistake(Mistake::SealOvertakes, 1, &[SEAL], BELOW);
}

#[test]
fn n5_a_seal_is_forgotten() {
    mistake(Mistake::SealForgotten, 1, &[SEAL], BELOW);
}

#[test]
fn n6_tail_and_seal_bit_are_two_samples() {
    mistake(Mistake::TwoSamples, 1, &[SEAL, TAIL], BELOW);
}

#[test]
fn n7_a_blank_server_votes() {
    mistake(Mistake::BlankVotes, 1, &[SEAL], BELOW);
}

#[test]
fn n8_the_smallest_of_the_sealed_tails() {
    planted(Bug::SmallestTail, 1, &[SEAL], BELOW);
}

#[test]
fn n9_a_sealed_tail_without_repair() {
    planted(Bug::SkipsRepair, 1, &[SEAL], SEALED_MINORITY);
}

#[test]
fn n15_a_repair_raises_the_known_tail() {
    mistake(Mistake::RepairRaisesKnownTail, 1, &[SEAL, SEAL], KNOWN);
}

#[test]
fn unsealed_answers_make_a_sealed_tail() {
    planted(Bug::MixesUnsealed, 1, &[SEAL, TAIL], BELOW);
}

#[test]
fn a_sealed_tail_is_shown_before_the_chain_decides() {
    mistake(Mistake::ShowsSealedTail, 1, &[SEAL, SEAL], SHOWN);
}

#[test]
fn a_local_tail_is_shown_without_waiting() {
    planted(Bug::ShowsLocalTail, 1, &[SEAL, TAIL], SHOWN);
}

#[test]
fn the_sequencer_is_made_again() {
    mistake(Mistake::SequencerAgain, 1, &[], TWO_VALUES);
}

#[test]
fn the_chain_is_written_unconditionally() {
    mistake(Mistake::PlainWrite, 1, &[SEAL, SEAL], REWRITTEN);
}

#[test]
fn one_copy_is_acknowledged() {
    planted(Bug::AcksAtOne, 1, &[], ACKED_MINORITY);
}

#[test]
fn one_sealed_server_seals() {
    planted(Bug::OneSealIsEnough, 1, &[SEAL], SEALED_MINORITY);
}

#[test]
fn t10_a_server_takes_a_batch_over_a_gap() {
    planted(Bug::TakesGap, 2, &[SEAL], ACKED_MINORITY);
}
