//! What can go wrong between host and guest.

use std::io;

use woodfrog_guest_proto::{ErrorBody, ErrorCode, FrameError};

#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No connection: the guest is not there, or not any more.
    #[error("cannot connect to the guest")]
    Connect(#[source] io::Error),
    /// The connection broke. Whether the operation happened is not known.
    #[error("connection to the guest failed")]
    Io(#[source] io::Error),
    /// The guest sent something that the protocol does not allow here.
    #[error("guest broke the protocol: {0}")]
    Protocol(String),
    /// The guest refused.
    #[error("{0}")]
    Refused(ErrorBody),
    #[error("guest did not answer in time")]
    Timeout,
    /// The descriptor is not what it should be; it was closed.
    #[error("guest passed an unusable descriptor: {0}")]
    Descriptor(&'static str),
}

impl GuestError {
    /// The guest's code when it was the guest that refused.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(body) => Some(body.code),
            _ => None,
        }
    }
}

impl From<FrameError> for GuestError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(error.to_string())
    }
}
