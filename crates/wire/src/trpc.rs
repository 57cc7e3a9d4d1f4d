//! tRPC over HTTP with superjson, as the clients of versions 10 and 11 speak it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use woodfrog_types::Code;

use crate::native::sandbox_session::SandboxSession;

/// Calls in one batch.
pub const BATCH_MAX: usize = 100;

/// superjson's envelope. What this API sends needs no `meta`: it has strings, numbers, booleans
/// and null only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Superjson<T> {
    pub json: T,
}

/// One call's answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Result { data: Superjson<Output> },
    Error(Superjson<ErrorShape>),
}

impl Answer {
    /// The answer of a procedure that ran.
    pub const fn of(output: Output) -> Self {
        Self::Result {
            data: Superjson { json: output },
        }
    }

    /// The HTTP status that goes with it alone.
    pub const fn http_status(&self) -> u16 {
        match self {
            Self::Result { .. } => 200,
            Self::Error(shape) => shape.json.data.http_status,
        }
    }
}

/// What the procedures answer. A failure is an output too: clients of this contract look at
/// `success`, whatever the status.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Output {
    /// `null` if there is none.
    Session {
        success: bool,
        session: Option<SandboxSession>,
    },
    Sessions {
        success: bool,
        sessions: Vec<SandboxSession>,
    },
    Failed {
        success: bool,
        error: String,
    },
}

impl Output {
    /// Whether the procedure did what it was asked.
    pub const fn succeeded(&self) -> bool {
        match self {
            Self::Session { success, .. }
            | Self::Sessions { success, .. }
            | Self::Failed { success, .. } => *success,
        }
    }

    pub const fn session(session: Option<SandboxSession>) -> Self {
        Self::Session {
            success: true,
            session,
        }
    }

    pub const fn sessions(sessions: Vec<SandboxSession>) -> Self {
        Self::Sessions {
            success: true,
            sessions,
        }
    }

    pub const fn failed(error: String) -> Self {
        Self::Failed {
            success: false,
            error,
        }
    }
}

/// An error of the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorShape {
    pub message: String,
    /// As JSON-RPC numbers them.
    pub code: i32,
    pub data: ErrorData,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    pub code: &'static str,
    pub http_status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// The protocol's own error codes, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Parse,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotSupported,
    PayloadTooLarge,
    TooManyRequests,
    ServiceUnavailable,
    Internal,
}

impl Kind {
    /// Its number, name and HTTP status.
    const fn parts(self) -> (i32, &'static str, u16) {
        match self {
            Self::Parse => (-32700, "PARSE_ERROR", 400),
            Self::BadRequest => (-32600, "BAD_REQUEST", 400),
            Self::Unauthorized => (-32001, "UNAUTHORIZED", 401),
            Self::Forbidden => (-32003, "FORBIDDEN", 403),
            Self::NotFound => (-32004, "NOT_FOUND", 404),
            Self::MethodNotSupported => (-32005, "METHOD_NOT_SUPPORTED", 405),
            Self::PayloadTooLarge => (-32013, "PAYLOAD_TOO_LARGE", 413),
            Self::TooManyRequests => (-32029, "TOO_MANY_REQUESTS", 429),
            Self::ServiceUnavailable => (-32603, "SERVICE_UNAVAILABLE", 503),
            Self::Internal => (-32603, "INTERNAL_SERVER_ERROR", 500),
        }
    }

    /// The kind that says what a fault's code says, of faults before a procedure runs.
    pub const fn of(code: Code) -> Self {
        match code.http_status() {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            413 => Self::PayloadTooLarge,
            429 => Self::TooManyRequests,
            503 => Self::ServiceUnavailable,
            _ => Self::Internal,
        }
    }

    /// The answer of a call that failed so.
    pub fn answer(self, message: impl Into<String>, path: Option<&str>) -> Answer {
        let (code, name, http_status) = self.parts();
        Answer::Error(Superjson {
            json: ErrorShape {
                message: message.into(),
                code,
                data: ErrorData {
                    code: name,
                    http_status,
                    path: path.map(str::to_owned),
                },
            },
        })
    }
}

/// The inputs of a request's calls, by number; a call without one has `None`. `text` is what the
/// request has as input: all of them as an object if it is a batch.
pub fn inputs(
    text: Option<&str>,
    batch: bool,
    calls: usize,
) -> Result<Vec<Option<Value>>, serde_json::Error> {
    let whole: Option<Value> = match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => Some(serde_json::from_str(text)?),
    };
    Ok(match whole {
        None => vec![None; calls],
        Some(Value::Object(mut by_number)) if batch => (0..calls)
            .map(|number| by_number.remove(&number.to_string()).and_then(plain))
            .collect(),
        Some(_) if batch => vec![None; calls],
        Some(one) => vec![plain(one)],
    })
}

/// What is in superjson's envelope; `None` for JavaScript's `undefined`.
fn plain(envelope: Value) -> Option<Value> {
    let Value::Object(mut envelope) = envelope else {
        return None;
    };
    let undefined = envelope
        .get("meta")
        .and_then(|meta| meta.get("values"))
        .is_some_and(|values| *values == serde_json::json!(["undefined"]));
    match envelope.remove("json") {
        Some(Value::Null) if undefined => None,
        json => json,
    }
}

/// The text field `name` of an input; the error is what zod says, as JSON text.
pub fn text_field(input: Option<&Value>, name: &str) -> Result<String, String> {
    let issue = |expected: &str, found: Option<&Value>, path: &[&str]| {
        let received = kind_name(found);
        let message = match found {
            None => "Required".to_owned(),
            Some(_) => format!("Expected {expected}, received {received}"),
        };
        let issue = serde_json::json!([{
            "code": "invalid_type",
            "expected": expected,
            "received": received,
            "path": path,
            "message": message,
        }]);
        serde_json::to_string_pretty(&issue).unwrap_or(message)
    };
    let object: &Map<String, Value> = match input {
        Some(Value::Object(object)) => object,
        other => return Err(issue("object", other, &[])),
    };
    match object.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(issue("string", other, &[name])),
    }
}

const fn kind_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "undefined",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "boolean",
        Some(Value::Number(_)) => "number",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "array",
        Some(Value::Object(_)) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn inputs_of_batches_and_single_calls() {
        let one = inputs(Some(r#"{"json":{"a":1}}"#), false, 1).expect("read");
        assert_eq!(one, [Some(json!({"a": 1}))]);
        let text = r#"{"0":{"json":null,"meta":{"values":["undefined"]}},"2":{"json":null}}"#;
        let three = inputs(Some(text), true, 3).expect("read");
        assert_eq!(three, [None, None, Some(Value::Null)]);
        assert_eq!(inputs(None, true, 2).expect("read"), [None, None]);
        assert_eq!(inputs(Some(" "), false, 1).expect("read"), [None]);
        assert_eq!(inputs(Some("[1]"), true, 1).expect("read"), [None]);
        assert!(inputs(Some("{"), false, 1).is_err());
    }

    #[test]
    fn answers_have_the_protocol_s_shape() {
        let none = Answer::of(Output::session(None));
        assert_eq!(
            serde_json::to_value(&none).expect("json"),
            json!({"result": {"data": {"json": {"success": true, "session": null}}}})
        );
        let refused = Kind::Unauthorized.answer("Not authenticated", Some("sandbox.x"));
        assert_eq!(refused.http_status(), 401);
        assert_eq!(
            serde_json::to_value(&refused).expect("json"),
            json!({"error": {"json": {
                "message": "Not authenticated",
                "code": -32001,
                "data": {"code": "UNAUTHORIZED", "httpStatus": 401, "path": "sandbox.x"},
            }}})
        );
    }

    #[test]
    fn fields_are_checked_as_zod_does() {
        let field = |input: Value| text_field(Some(&input), "sandboxId");
        assert_eq!(field(json!({"sandboxId": ""})), Ok(String::new()));
        let wrong = field(json!({"sandboxId": 7})).expect_err("a number");
        assert!(
            wrong.contains("Expected string, received number"),
            "{wrong}"
        );
        let missing = text_field(None, "sandboxId").expect_err("nothing");
        assert!(missing.contains("Required"), "{missing}");
    }
}
