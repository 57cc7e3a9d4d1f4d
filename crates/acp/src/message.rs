//! One JSON-RPC 2.0 message.

use std::fmt;

use serde_json::{Map, Value};

/// The id of a request: a number or a string. Ordered and hashed by its JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// From its JSON value. `None` for what the specification does not allow as an id.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(_) | Value::String(_) => Some(Self(value.to_string())),
            _ => None,
        }
    }

    /// A string id.
    pub fn text(text: &str) -> Self {
        Self(Value::from(text).to_string())
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.0).unwrap_or(Value::Null)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of message it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    Request {
        method: String,
        id: Id,
    },
    Notification {
        method: String,
    },
    /// The id is `None` where an error answers something that could not be read.
    Response {
        id: Option<Id>,
    },
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("not JSON: {0}")]
    Json(String),
    #[error("a batch; one message at a time is taken")]
    Batch,
    #[error("not a JSON object")]
    NotAnObject,
    #[error("`jsonrpc` must be \"2.0\"")]
    Version,
    #[error("neither a request, a notification nor a response")]
    Shape,
}

/// A message that was understood.
#[derive(Debug, Clone)]
pub struct Envelope {
    class: Class,
    body: Map<String, Value>,
    /// The text it was read from, while it still says the same.
    text: Option<String>,
}

impl Envelope {
    /// Reads one message. Its text is kept where it is one line already.
    pub fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| Unreadable::Json(error.to_string()))?;
        let mut envelope = Self::from_value(value)?;
        envelope.text = std::str::from_utf8(bytes)
            .ok()
            .map(str::trim)
            .filter(|text| !text.contains(['\n', '\r']))
            .map(str::to_owned);
        Ok(envelope)
    }

    /// From a JSON value.
    pub fn from_value(value: Value) -> Result<Self, Unreadable> {
        let body = match value {
            Value::Object(body) => body,
            Value::Array(_) => return Err(Unreadable::Batch),
            _ => return Err(Unreadable::NotAnObject),
        };
        // Some agents leave the version out; none means another one by it.
        match body.get("jsonrpc") {
            None => {}
            Some(Value::String(version)) if version == "2.0" => {}
            Some(_) => return Err(Unreadable::Version),
        }
        Ok(Self {
            class: classify(&body)?,
            body,
            text: None,
        })
    }

    /// A request.
    pub fn request(id: &Id, method: &str, params: Value) -> Self {
        let body = object([
            ("jsonrpc", Value::from("2.0")),
            ("id", id.value()),
            ("method", Value::from(method)),
            ("params", params),
        ]);
        let class = Class::Request {
            method: method.to_owned(),
            id: id.clone(),
        };
        Self {
            class,
            body,
            text: None,
        }
    }

    /// A notification.
    pub fn notification(method: &str, params: Value) -> Self {
        let body = object([
            ("jsonrpc", Value::from("2.0")),
            ("method", Value::from(method)),
            ("params", params),
        ]);
        let class = Class::Notification {
            method: method.to_owned(),
        };
        Self {
            class,
            body,
            text: None,
        }
    }

    /// The answer to the request `id`.
    pub fn result(id: &Id, result: Value) -> Self {
        let body = object([
            ("jsonrpc", Value::from("2.0")),
            ("id", id.value()),
            ("result", result),
        ]);
        Self {
            class: Class::Response {
                id: Some(id.clone()),
            },
            body,
            text: None,
        }
    }

    /// The refusal of the request `id`.
    pub fn failure(id: &Id, error: Value) -> Self {
        let body = object([
            ("jsonrpc", Value::from("2.0")),
            ("id", id.value()),
            ("error", error),
        ]);
        Self {
            class: Class::Response {
                id: Some(id.clone()),
            },
            body,
            text: None,
        }
    }

    pub const fn class(&self) -> &Class {
        &self.class
    }

    /// The method of a request or a notification.
    pub fn method(&self) -> Option<&str> {
        match &self.class {
            Class::Request { method, .. } | Class::Notification { method } => Some(method),
            Class::Response { .. } => None,
        }
    }

    pub fn params(&self) -> Option<&Value> {
        self.body.get("params")
    }

    /// The result of a response that is no error.
    pub fn ok(&self) -> Option<&Value> {
        self.body.get("result")
    }

    /// The error of a response.
    pub fn error(&self) -> Option<&Value> {
        self.body.get("error")
    }

    /// The conversation that it is about.
    pub fn session(&self) -> Option<&str> {
        self.params()?.get("sessionId")?.as_str()
    }

    /// Makes it about another conversation.
    pub fn set_session(&mut self, session: &str) {
        if let Some(Value::Object(params)) = self.body.get_mut("params") {
            params.insert("sessionId".to_owned(), Value::from(session));
            self.text = None;
        }
    }

    /// Makes a result name another conversation.
    pub fn set_result_session(&mut self, session: &str) {
        if let Some(Value::Object(result)) = self.body.get_mut("result") {
            result.insert("sessionId".to_owned(), Value::from(session));
            self.text = None;
        }
    }

    /// Gives it another id.
    pub fn set_id(&mut self, id: &Id) {
        let new = id.clone();
        match &mut self.class {
            Class::Request { id, .. } => *id = new,
            Class::Response { id } => *id = Some(new),
            Class::Notification { .. } => return,
        }
        self.body.insert("id".to_owned(), id.value());
        self.text = None;
    }

    /// Puts a text block before the blocks of a prompt.
    pub fn prepend_text(&mut self, text: &str) {
        let blocks = self
            .body
            .get_mut("params")
            .and_then(|params| params.get_mut("prompt"));
        if let Some(Value::Array(blocks)) = blocks {
            blocks.insert(0, serde_json::json!({"type": "text", "text": text}));
            self.text = None;
        }
    }

    /// Adds to the error's data what the agent said last.
    pub fn explain_error(&mut self, stderr: &str) {
        let Some(Value::Object(error)) = self.body.get_mut("error") else {
            return;
        };
        let data = error
            .entry("data")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(data) = data {
            data.insert("agentStderr".to_owned(), Value::from(stderr));
            self.text = None;
        }
    }

    /// One line of JSON, without its end.
    pub fn to_line(&self) -> String {
        match &self.text {
            Some(text) => text.clone(),
            None => serde_json::to_string(&self.body).unwrap_or_default(),
        }
    }
}

fn classify(body: &Map<String, Value>) -> Result<Class, Unreadable> {
    let id = body.get("id");
    match (body.get("method"), id) {
        (Some(Value::String(method)), None) => Ok(Class::Notification {
            method: method.clone(),
        }),
        (Some(Value::String(method)), Some(id)) => Ok(Class::Request {
            method: method.clone(),
            id: Id::of(id).ok_or(Unreadable::Shape)?,
        }),
        (None, Some(id)) if body.contains_key("result") || body.contains_key("error") => {
            Ok(Class::Response { id: Id::of(id) })
        }
        _ => Err(Unreadable::Shape),
    }
}

fn object<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let class = |text: &str| Envelope::parse(text.as_bytes()).map(|it| it.class);
        let id = Id::of(&Value::from(1)).unwrap();
        assert_eq!(
            class(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#),
            Ok(Class::Request {
                method: "m".to_owned(),
                id: id.clone()
            })
        );
        assert_eq!(
            class(r#"{"jsonrpc":"2.0","method":"m","params":{}}"#),
            Ok(Class::Notification {
                method: "m".to_owned()
            })
        );
        assert_eq!(
            class(r#"{"jsonrpc":"2.0","id":1,"result":null}"#),
            Ok(Class::Response { id: Some(id) })
        );
        assert_eq!(
            class(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#),
            Ok(Class::Response { id: None })
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let parse = |text: &str| Envelope::parse(text.as_bytes()).map(|_| ());
        assert!(matches!(parse("{"), Err(Unreadable::Json(_))));
        assert_eq!(parse("[]"), Err(Unreadable::Batch));
        assert_eq!(parse("7"), Err(Unreadable::NotAnObject));
        assert_eq!(parse("{}"), Err(Unreadable::Shape));
        assert_eq!(parse(r#"{"id":{},"method":"m"}"#), Err(Unreadable::Shape));
        assert_eq!(
            parse(r#"{"jsonrpc":"1.0","method":"m"}"#),
            Err(Unreadable::Version)
        );
    }

    #[test]
    fn a_message_stays_as_it_was_until_it_is_changed() {
        let text = r#"{"method":"session/prompt", "jsonrpc":"2.0","id":1,"params":{"sessionId":"a","prompt":[]}}"#;
        let mut envelope = Envelope::parse(text.as_bytes()).unwrap();
        assert_eq!(envelope.to_line(), text);
        envelope.set_session("b");
        envelope.prepend_text("hello");
        let again = Envelope::parse(envelope.to_line().as_bytes()).unwrap();
        assert_eq!(again.session(), Some("b"));
        assert_eq!(again.params().unwrap()["prompt"][0]["text"], "hello");
    }

    #[test]
    fn a_message_over_lines_becomes_one() {
        let envelope = Envelope::parse(b"{\"jsonrpc\":\"2.0\",\n\"method\":\"m\"}").unwrap();
        assert!(!envelope.to_line().contains('\n'));
    }
}
