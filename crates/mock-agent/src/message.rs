//! JSON-RPC messages as they are on the wire.

use serde_json::{Value, json};

/// The text is not JSON.
pub(crate) const PARSE_ERROR: i64 = -32700;
/// JSON, but no message that can be answered.
pub(crate) const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters are not what the method takes.
pub(crate) const INVALID_PARAMS: i64 = -32602;
/// No such session, as the protocol numbers it.
pub(crate) const NOT_FOUND: i64 = -32002;
/// Something of ours failed.
pub(crate) const INTERNAL: i64 = -32603;

/// An error answer before it has its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(crate) fn params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }
}

/// What a line from the client is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Incoming {
    Request {
        id: Value,
        method: String,
        params: Value,
    },
    Notification {
        method: String,
        params: Value,
    },
    /// An answer to a request of ours: its id and, unless it is an error, the result.
    Answer {
        id: Value,
        result: Result<Value, Value>,
    },
}

/// Reads one line. The error is what to answer, under the id if there was one.
pub(crate) fn read(line: &str) -> Result<Incoming, (Value, Refusal)> {
    let refused = |code, message: &str| (Value::Null, Refusal::new(code, message));
    let value: Value = serde_json::from_str(line)
        .map_err(|e| refused(PARSE_ERROR, &format!("this is not JSON: {e}")))?;
    let Value::Object(mut object) = value else {
        return Err(refused(INVALID_REQUEST, "a message is an object"));
    };
    let id = object.remove("id");
    let params = object.remove("params").unwrap_or(Value::Null);
    match (object.remove("method"), id) {
        (Some(Value::String(method)), Some(id)) => Ok(Incoming::Request { id, method, params }),
        (Some(Value::String(method)), None) => Ok(Incoming::Notification { method, params }),
        (Some(_), id) => Err((
            id.unwrap_or(Value::Null),
            Refusal::new(INVALID_REQUEST, "`method` is a string"),
        )),
        (None, Some(id)) => {
            let result = match (object.remove("result"), object.remove("error")) {
                (Some(result), None) => Ok(result),
                (_, Some(error)) => Err(error),
                (None, None) => {
                    return Err((
                        id,
                        Refusal::new(INVALID_REQUEST, "neither a request nor an answer"),
                    ));
                }
            };
            Ok(Incoming::Answer { id, result })
        }
        (None, None) => Err(refused(INVALID_REQUEST, "neither a method nor an id")),
    }
}

pub(crate) fn result(id: &Value, result: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

pub(crate) fn error(id: &Value, refusal: &Refusal) -> String {
    let error = json!({"code": refusal.code, "message": refusal.message});
    json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()
}

pub(crate) fn request(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

pub(crate) fn notification(method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string()
}

/// A `session/update`.
pub(crate) fn update(session: &str, update: &Value) -> String {
    notification(
        "session/update",
        &json!({"sessionId": session, "update": update}),
    )
}

/// A piece of text: `agent_message_chunk`, `agent_thought_chunk` or `user_message_chunk`.
pub(crate) fn chunk(session: &str, kind: &str, text: &str) -> String {
    update(
        session,
        &json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}}),
    )
}
