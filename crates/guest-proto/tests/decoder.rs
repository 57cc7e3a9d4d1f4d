//! The decoder against arbitrary and arbitrarily split input.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use woodfrog_guest_proto::{
    Channel, DATA_HEADER_LEN, Decoder, Frame, FrameError, FrameKind, HEADER_LEN, Request, VERSION,
    data_prefix, encode, limits, parse_json,
};

fn any_frame() -> impl Strategy<Value = (Vec<u8>, Frame)> {
    let payload = prop::collection::vec(any::<u8>(), 0..300);
    (0..9u8, payload, any::<u32>()).prop_map(|(kind, payload, offset)| {
        let control = |kind, make: fn(bytes::Bytes) -> Frame| {
            (
                encode(kind, &payload).unwrap(),
                make(payload.clone().into()),
            )
        };
        let data = |channel| {
            let mut wire = data_prefix(channel, offset.into(), payload.len()).to_vec();
            wire.extend_from_slice(&payload);
            let bytes = payload.clone().into();
            (
                wire,
                Frame::Data {
                    channel,
                    offset: offset.into(),
                    bytes,
                },
            )
        };
        match kind {
            0 => control(FrameKind::Request, Frame::Request),
            1 => control(FrameKind::Reply, Frame::Reply),
            2 => control(FrameKind::Event, Frame::Event),
            3 => control(FrameKind::End, Frame::End),
            4 => control(FrameKind::Error, Frame::Error),
            5 => data(Channel::Plain),
            6 => data(Channel::Stdout),
            7 => data(Channel::Stderr),
            _ => data(Channel::Pty),
        }
    })
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        frames in prop::collection::vec(any_frame(), 1..8),
        cuts in prop::collection::vec(1..64usize, 1..64),
    ) {
        let wire: Vec<u8> = frames.iter().flat_map(|(wire, _)| wire.clone()).collect();
        let mut decoder = Decoder::new();
        let mut decoded = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            decoder.feed(now);
            rest = later;
            while let Some(frame) = decoder.next_frame().unwrap() {
                decoded.push(frame);
            }
            prop_assert!(decoder.wanted() >= 1);
        }
        let sent: Vec<Frame> = frames.into_iter().map(|(_, frame)| frame).collect();
        prop_assert_eq!(decoded, sent);
        prop_assert!(decoder.is_empty());
    }

    #[test]
    fn arbitrary_bytes_never_panic_or_ask_for_too_much(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        honest in any::<bool>(),
    ) {
        let mut decoder = Decoder::new();
        if honest {
            decoder.feed(&[VERSION]);
        }
        for chunk in bytes.chunks(7) {
            decoder.feed(chunk);
            let most = HEADER_LEN + limits::MAX_CONTROL.max(limits::MAX_DATA + DATA_HEADER_LEN);
            prop_assert!(decoder.wanted() <= most);
            match decoder.next_frame() {
                Ok(Some(Frame::Request(payload))) => drop(parse_json::<Request>(&payload)),
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

#[test]
fn limits_are_checked_from_the_header_alone() {
    let header = |version: u8, kind: u8, len: u32| {
        let mut decoder = Decoder::new();
        decoder.feed(&[version, kind]);
        decoder.feed(&len.to_be_bytes());
        decoder.next_frame()
    };
    let most = limits::MAX_CONTROL as u32;
    assert_eq!(header(VERSION, 1, most), Ok(None));
    assert!(matches!(
        header(VERSION, 1, most + 1),
        Err(FrameError::TooLarge { .. })
    ));
    assert!(matches!(
        header(VERSION, 1, u32::MAX),
        Err(FrameError::TooLarge { .. })
    ));
    let data = (limits::MAX_DATA + DATA_HEADER_LEN) as u32;
    assert_eq!(header(VERSION, 3, data), Ok(None));
    assert!(matches!(
        header(VERSION, 3, data + 1),
        Err(FrameError::TooLarge { .. })
    ));
    assert_eq!(header(VERSION, 3, 8), Err(FrameError::ShortData(8)));
    assert_eq!(header(VERSION, 99, 0), Err(FrameError::Kind(99)));
    assert_eq!(header(0x47, 1, 0), Err(FrameError::Version(0x47)));
}
