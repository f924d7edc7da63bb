//! The protocol, both ways, and the plan of the embedded engine.

use alloc::{vec, vec::Vec};

use super::{Choices, pieces};
use crate::{
    DecodeError, Encoder, FRAME_HEADER_BYTES, FileChange, FileUsage, FrameBuffer, MAX_FRAME_BYTES,
    Reply, Request,
    plan::{ExitMark, Plan, Report},
};

/// A frame that was taken out of a buffer.
type Owned = (u8, u32, Vec<u8>);

/// What a client sends to PID 1.
pub fn requests(input: &[u8]) {
    for (kind, stream, payload) in cut_anywhere(input) {
        let request = Request::decode(kind, &payload);
        let input = match &request {
            Ok(Request::Stdin(data)) => Some(&data[..]),
            _ => None,
        };
        assert_eq!(input, Request::decode_stdin(kind, &payload));
        let Ok(request) = request else {
            continue;
        };
        let mut wire = Vec::new();
        request.encode(stream, &mut wire);
        if let Request::Stdin(data) = &request {
            let mut same = Vec::new();
            Request::encode_stdin(stream, data, &mut same);
            assert_eq!(same, wire);
        }
        let (again, length) = only_frame(&wire);
        assert!(length <= payload.len(), "{request:?} grows");
        let decoded = Request::decode(again.0, &again.2);
        assert_eq!(decoded.as_ref(), Ok(&request));
        assert_eq!((again.0, again.1), (kind, stream));
        // Bytes after the end are no part of a request, unless it takes all there are.
        let open = matches!(
            request,
            Request::Stdin(_) | Request::Exec(_) | Request::Spawn(_)
        );
        let longer = [&payload[..], b"\0"].concat();
        assert!(open || Request::decode(kind, &longer).is_err());
    }
}

/// What an agent sends to its client.
pub fn replies(input: &[u8]) {
    for (kind, stream, payload) in cut_anywhere(input) {
        let reply = Reply::decode(kind, &payload);
        let read = match &reply {
            Ok(Reply::Data(output, data)) => Some((*output, &data[..])),
            _ => None,
        };
        assert_eq!(read, Reply::decode_data(kind, &payload));
        if let Ok(reply) = reply {
            let mut wire = Vec::new();
            reply.encode(stream, &mut wire);
            let (again, length) = only_frame(&wire);
            assert!(length <= payload.len(), "{reply:?} grows");
            assert_eq!(Reply::decode(again.0, &again.2), Ok(reply));
            assert_eq!((again.0, again.1), (kind, stream));
        }
        // Frames within the output of a file call.
        if let Ok(change) = FileChange::decode(kind, &payload) {
            let mut wire = Vec::new();
            change.encode(&mut wire);
            let (again, _) = only_frame(&wire);
            assert_eq!(FileChange::decode(again.0, &again.2), Ok(change));
        }
        if let Ok(usage) = FileUsage::decode(&payload) {
            let mut wire = Vec::new();
            usage.encode(&mut wire);
            let (again, _) = only_frame(&wire);
            assert_eq!(FileUsage::decode(&again.2), Ok(usage));
        }
    }
}

/// What the embedded engine and the process that becomes PID 1 say to each other, and the mark that
/// one leaves.
pub fn plans(input: &[u8]) {
    let wire = as_wire(input);
    let mut buffer = FrameBuffer::new();
    buffer.push(&wire);
    while let Ok(Some(plan)) = Plan::take(&mut buffer) {
        let mut wire = Vec::new();
        plan.encode(&mut wire);
        let mut again = FrameBuffer::new();
        again.push(&wire);
        assert_eq!(Plan::take(&mut again), Ok(Some(plan)));
        assert_eq!(again.next_frame(), Ok(None));
    }
    let mut buffer = FrameBuffer::new();
    buffer.push(&wire);
    while let Ok(Some(report)) = Report::take(&mut buffer) {
        let mut wire = Vec::new();
        report.encode(&mut wire);
        let mut again = FrameBuffer::new();
        again.push(&wire);
        assert_eq!(Report::take(&mut again), Ok(Some(report)));
    }
    if let Some(mark) = core::str::from_utf8(input).ok().and_then(ExitMark::parse) {
        assert_eq!(ExitMark::parse(&mark.encode()), Some(mark));
    }
}

/// The frames of an input, which are the same wherever the bytes are cut.
fn cut_anywhere(input: &[u8]) -> Vec<Owned> {
    let wire = as_wire(input);
    let whole = frames(&[&wire]);
    assert_eq!(frames(&pieces(&wire)), whole);
    let (frames, error) = whole;
    let mut taken = Vec::new();
    for (kind, stream, payload) in &frames {
        let mut frame = Encoder::frame(&mut taken, *kind, *stream);
        frame.rest(payload);
        frame.end();
    }
    assert!(wire.starts_with(&taken), "frames are what came");
    let left = wire.get(taken.len()..).unwrap_or_default();
    if let Some(error) = error {
        assert!(matches!(error, DecodeError::FrameSize(_)));
    } else {
        assert!(left.len() < MAX_FRAME_BYTES + FRAME_HEADER_BYTES);
    }
    frames
}

/// The frames of a stream that comes in pieces, and what ended it.
fn frames(pieces: &[&[u8]]) -> (Vec<Owned>, Option<DecodeError>) {
    let (mut buffer, mut frames) = (FrameBuffer::new(), Vec::new());
    for piece in pieces {
        buffer.push(piece);
        loop {
            let there = buffer.has_frame();
            let next = buffer.next_frame();
            assert_eq!(there, !matches!(next, Ok(None)));
            match next {
                Ok(Some((kind, stream, payload))) => frames.push((kind, stream, payload.to_vec())),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// The bytes as they are, or as payloads of frames, which the bytes alone would seldom be.
fn as_wire(input: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(input);
    if !choices.bool() {
        return choices.rest().to_vec();
    }
    let mut wire = vec![];
    while !choices.is_empty() {
        let (kind, stream) = (choices.u8(), choices.u8());
        let length = choices.u16() % 4096;
        let mut frame = Encoder::frame(&mut wire, kind, stream.into());
        frame.rest(choices.take(length.into()));
        frame.end();
    }
    wire
}

/// The one frame that there is, and the length of its payload.
fn only_frame(wire: &[u8]) -> (Owned, usize) {
    let (mut frames, error) = frames(&[wire]);
    assert_eq!((frames.len(), error), (1, None));
    let frame = frames.remove(0);
    let length = frame.2.len();
    assert_eq!(length + FRAME_HEADER_BYTES, wire.len());
    (frame, length)
}
