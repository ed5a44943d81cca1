//! The pipe between the daemon and a render worker. What the worker sends is hostile: a template
//! may have taken it over.

use althing::base::limits;
use althing::render::engine::protocol::{self, FRAME_BYTES_MAX, FromWorker, ToWorker};

/// Reads `data` as a frame's start and as a message of either side.
pub fn check(data: &[u8]) {
    if let Some(start) = data.first_chunk::<4>()
        && let Ok(bytes) = protocol::length_of(*start)
    {
        assert!(bytes <= FRAME_BYTES_MAX);
    }
    if let Ok(message) = FromWorker::decode(data) {
        bounded(&message);
        assert_eq!(FromWorker::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = ToWorker::decode(data) {
        assert_eq!(ToWorker::decode(&message.encode()), Ok(message));
    }
}

fn bounded(message: &FromWorker) {
    let FromWorker::Ended(rendered) = message else { return };
    assert!(rendered.touched.len() <= limits::RENDER_TOUCHED_MAX);
    if let Err(error) = &rendered.outcome {
        assert!(error.notes.len() <= limits::DIAGNOSTIC_NOTES_MAX);
        assert!(error.to_string().starts_with("error: "));
    }
}
