//! What a sequencer remembers of writers, to the batch.

use super::*;

fn claim(writer: u128, seq: u64, resend: bool) -> Claim {
    Claim { writer: WriterId(writer), first_seq: seq, count: 1, resend, round: 0, floor: seq }
}

/// A batch of one entry that comes to position `at`.
fn take(writers: &mut Writers, writer: u128, seq: u64, at: u64, known_tail: u64) {
    let known_tail = LogletPos(known_tail);
    assert_eq!(writers.admit(&claim(writer, seq, false), known_tail), Ok(None));
    let sent = Sent { first: LogletPos(at), end: LogletPos(at + 1) };
    writers.taken(WriterId(writer), seq, sent, known_tail);
}

fn again(writers: &mut Writers, writer: u128, seq: u64) -> Result<Option<u64>, AppendRefusal> {
    let sent = writers.admit(&claim(writer, seq, true), LogletPos(100));
    sent.map(|sent| sent.map(|sent| sent.first.0))
}

#[test]
fn the_last_batches_of_a_writer_are_remembered_and_all_that_are_not_committed() {
    let mut writers = Writers::new(9, 2);
    for seq in 0..4 {
        take(&mut writers, 1, seq, seq, 0);
    }
    assert_eq!(
        [0, 1, 2, 3].map(|seq| again(&mut writers, 1, seq)),
        [0, 1, 2, 3].map(|at| Ok(Some(at)))
    );
    take(&mut writers, 1, 4, 4, 4);
    let forgotten = Err(AppendRefusal::Forgotten);
    assert_eq!([0, 1, 2].map(|seq| again(&mut writers, 1, seq)), [forgotten; 3]);
    assert_eq!([3, 4].map(|seq| again(&mut writers, 1, seq)), [Ok(Some(3)), Ok(Some(4))]);
}

#[test]
fn a_writer_all_of_whose_batches_are_committed_makes_room_for_another() {
    let mut writers = Writers::new(2, 9);
    take(&mut writers, 1, 0, 0, 0);
    take(&mut writers, 2, 0, 1, 1);
    // The second one waits for its batch, the first one does not.
    take(&mut writers, 3, 0, 2, 1);
    assert_eq!(again(&mut writers, 1, 0), Err(AppendRefusal::Forgotten));
    assert_eq!(again(&mut writers, 2, 0), Ok(Some(1)));
    assert_eq!(again(&mut writers, 3, 0), Ok(Some(2)));
}
