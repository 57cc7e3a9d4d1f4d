//! Input of processes, and the size of their terminals.

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use woodfrog_engine::GuestLease;
use woodfrog_guest_client::GuestError;
use woodfrog_guest_client::proto::{ErrorCode, ProcessRef, PtySize};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::agent::process::{Input, InputTaken, Resize};

use super::settings::INPUT_BYTES_MAX;
use super::table;
use crate::agent::AgentHost;
use crate::agent::extract::Json as JsonBody;
use crate::agent::problem::{Failure, Result};

/// A body of the largest input: escaped in JSON a byte is at most six.
const BODY_BYTES_MAX: usize = INPUT_BYTES_MAX as usize * 6 + 4096;

/// Writes to a process's input, and answers once the process's pipe has taken it.
pub(super) async fn input(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Response> {
    let most = host.state.processes.current().max_input_bytes_per_request;
    let input: Input = match read(body).await? {
        Ok(input) => input,
        Err(refused) => return Ok(refused),
    };
    let id = table::number(&id)?;
    let bytes = decode(&input.data, input.encoding.as_deref(), most)?;
    let guest = host.guest().await?;
    let info = table::info(&guest, id).await?;
    if info.end.is_some() {
        return Err(not_running());
    }
    write(&guest, id, &bytes).await.map_err(refused)?;
    let bytes_written = bytes.len() as u64;
    Ok(Json(InputTaken { bytes_written }).into_response())
}

/// The body, of whatever size an input may have.
async fn read(body: Body) -> Result<std::result::Result<Input, Response>> {
    let collected = Limited::new(body, BODY_BYTES_MAX).collect().await;
    let Ok(collected) = collected else {
        let message = format!("the body is broken off or larger than {BODY_BYTES_MAX} bytes");
        return Err(Fault::new(Code::TooLarge, message).into());
    };
    let parsed = axum::Json::from_bytes(&collected.to_bytes());
    Ok(parsed
        .map(|Json(input)| input)
        .map_err(IntoResponse::into_response))
}

/// The bytes that a text stands for.
pub(super) fn decode(data: &str, encoding: Option<&str>, most: u64) -> Result<Bytes> {
    let bytes = match encoding.unwrap_or("base64") {
        "base64" => BASE64
            .decode(data)
            .map_err(|error| Failure::invalid(format_args!("invalid base64 input: {error}")))?,
        "utf8" | "text" => data.as_bytes().to_vec(),
        _ => {
            let message = "encoding must be one of: base64, utf8, text";
            return Err(Failure::invalid(message));
        }
    };
    if bytes.len() as u64 > most {
        let message = format!("input payload exceeds maxInputBytesPerRequest ({most})");
        return Err(Fault::new(Code::TooLarge, message).into());
    }
    Ok(Bytes::from(bytes))
}

pub(super) async fn write(
    guest: &GuestLease,
    id: u64,
    bytes: &[u8],
) -> std::result::Result<(), GuestError> {
    let written = guest.write_stdin(ProcessRef::Id(id), None, bytes).await;
    written.map(drop)
}

fn refused(error: GuestError) -> Failure {
    match error.code() {
        Some(ErrorCode::ProcessGone | ErrorCode::NotFound) => not_running(),
        Some(ErrorCode::Closed) => Failure::conflict("process stdin is closed"),
        _ => error.into(),
    }
}

fn not_running() -> Failure {
    Failure::conflict("process is not running")
}

pub(super) fn no_terminal() -> Failure {
    Failure::conflict("process is not running in tty mode")
}

pub(super) fn size(cols: u16, rows: u16) -> Result<PtySize> {
    if cols == 0 || rows == 0 {
        return Err(Failure::invalid("cols and rows must be greater than 0"));
    }
    Ok(PtySize { cols, rows })
}

pub(super) async fn resize(
    Extension(host): Extension<AgentHost>,
    Path(id): Path<String>,
    JsonBody(wanted): JsonBody<Resize>,
) -> std::result::Result<(StatusCode, Json<Resize>), Failure> {
    let id = table::number(&id)?;
    let size = size(wanted.cols, wanted.rows)?;
    let guest = host.guest().await?;
    let info = table::info(&guest, id).await?;
    if info.pty.is_none() || info.end.is_some() {
        return Err(no_terminal());
    }
    guest.resize(ProcessRef::Id(id), size).await?;
    Ok((StatusCode::OK, Json(wanted)))
}
