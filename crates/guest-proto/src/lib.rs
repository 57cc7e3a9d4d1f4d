//! The protocol between the host and the guest (PID 1 of a sandbox): frames, requests, replies.
//!
//! Everything here is pure: bytes in, values out. Neither side trusts the other, so every length
//! has a limit that is checked before memory is taken. The layout and its reasons are in
//! `docs/design/guest-protocol.md`.
#![forbid(unsafe_code)]

mod error;
mod file;
mod frame;
pub mod limits;
mod process;
mod request;
mod system;
pub mod tcp;

pub use error::{ErrorBody, ErrorCode};
pub use file::*;
pub use frame::{
    Channel, DATA_HEADER_LEN, Decoder, Frame, FrameError, FrameKind, HEADER_LEN, VERSION,
    data_prefix, encode, encode_json, parse_json,
};
pub use process::*;
pub use request::Request;
pub use system::*;
