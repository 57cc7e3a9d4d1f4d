//! Reaching a sandbox's guest on behalf of a principal.

use woodfrog_engine::GuestLease;
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::ErrorCode;
use woodfrog_types::key::Principal;
use woodfrog_types::{Code, Fault, SandboxId};

use crate::state::App;

/// The guest of a sandbox that the principal may use.
pub(super) async fn lease(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
) -> Result<GuestLease, Fault> {
    app.engine.sandbox_fetch(principal, id).await?;
    app.engine.guest(id).await
}

/// What an operation was about: decides what "not found" means.
#[derive(Debug, Clone, Copy)]
pub(super) enum About {
    File,
    Process,
}

/// The fault for a guest's refusal or silence.
pub(super) fn fault(error: GuestError, about: About) -> Fault {
    let Some(refused) = error.code() else {
        let (code, message) = match &error {
            GuestError::Timeout => (Code::DeadlineExceeded, "the sandbox did not answer in time"),
            _ => (
                Code::GuestUnresponsive,
                "the sandbox's guest cannot be reached",
            ),
        };
        return Fault::new(code, message).because(error);
    };
    let code = match refused {
        ErrorCode::NotFound => match about {
            About::File => Code::FileNotFound,
            About::Process => Code::ProcessNotFound,
        },
        ErrorCode::ProcessGone => Code::ProcessNotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::NotADirectory
        | ErrorCode::IsADirectory
        | ErrorCode::InvalidArgument
        | ErrorCode::UnknownUser => Code::InvalidArgument,
        ErrorCode::NoSpace => Code::NoSpace,
        ErrorCode::TooLarge => Code::TooLarge,
        ErrorCode::Busy => Code::RateLimited,
        ErrorCode::Unsupported => Code::Unsupported,
        ErrorCode::Closed => Code::Conflict,
        ErrorCode::ConnectionRefused => Code::PortNotOpen,
        ErrorCode::Internal => Code::Internal,
    };
    Fault::new(code, error.to_string())
}

/// Permission bits from octal text.
pub(super) fn mode(text: Option<&str>) -> Result<Option<u32>, Fault> {
    let parse = |text: &str| {
        u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777)
            .ok_or_else(|| Fault::invalid("mode", "mode must be octal, at most 7777"))
    };
    text.map(parse).transpose()
}
