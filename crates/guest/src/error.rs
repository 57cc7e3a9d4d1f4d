//! Failures of operations, made from system errors.

use std::io;

use rustix::io::Errno;
use woodfrog_guest_proto::{ErrorBody, ErrorCode};

pub(crate) type OpResult<T> = Result<T, ErrorBody>;

/// A failure that is not a system error.
pub(crate) fn fail(code: ErrorCode, message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(code, message)
}

/// Shorthand for the most common failure.
pub(crate) fn invalid(message: impl Into<String>) -> ErrorBody {
    fail(ErrorCode::InvalidArgument, message)
}

/// A failed system call on `what`.
pub(crate) fn system(what: &str, error: impl Into<io::Error>) -> ErrorBody {
    let error = error.into();
    let code = Errno::from_io_error(&error).map_or(ErrorCode::Internal, code_of);
    match code {
        ErrorCode::NotFound => fail(code, format!("{what} does not exist")),
        _ => fail(code, format!("{what}: {error}")),
    }
}

fn code_of(errno: Errno) -> ErrorCode {
    match errno {
        Errno::NOENT => ErrorCode::NotFound,
        Errno::EXIST | Errno::NOTEMPTY => ErrorCode::AlreadyExists,
        Errno::NOTDIR => ErrorCode::NotADirectory,
        Errno::ISDIR => ErrorCode::IsADirectory,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => ErrorCode::PermissionDenied,
        Errno::INVAL | Errno::NAMETOOLONG | Errno::LOOP | Errno::XDEV | Errno::NXIO => {
            ErrorCode::InvalidArgument
        }
        Errno::NOSPC | Errno::DQUOT => ErrorCode::NoSpace,
        Errno::FBIG | Errno::TOOBIG => ErrorCode::TooLarge,
        Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::NOMEM | Errno::TXTBSY => {
            ErrorCode::Busy
        }
        Errno::OPNOTSUPP | Errno::NOSYS => ErrorCode::Unsupported,
        Errno::CONNREFUSED => ErrorCode::ConnectionRefused,
        Errno::PIPE => ErrorCode::Closed,
        Errno::SRCH => ErrorCode::ProcessGone,
        _ => ErrorCode::Internal,
    }
}
