//! What an entry of the log holds: an envelope with commands.

use althing::machine::Envelope;

/// What is accepted has one encoding: that of the entry.
pub fn check(data: &[u8]) {
    let Ok(envelope) = Envelope::open(data) else { return };
    let Envelope { stamp, wall, proposal } = envelope;
    assert_eq!(Envelope::seal(stamp, wall, &proposal.encode()), data);
    assert_eq!(Envelope::stamp_of(data), Ok(stamp));
}
