//! The host's client of the guest protocol.
#![forbid(unsafe_code)]

/// A client of one sandbox's guest.
#[derive(Clone)]
pub struct GuestClient {}
