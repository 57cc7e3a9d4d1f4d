//! `process.Process`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::proto3::{Blob, number, optional_number, or_default};

/// What to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessConfig {
    #[serde(default, deserialize_with = "or_default")]
    pub cmd: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub args: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub envs: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// A terminal of a size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Pty {
    #[serde(default)]
    pub size: Option<PtySize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PtySize {
    #[serde(default, deserialize_with = "number")]
    pub cols: u32,
    #[serde(default, deserialize_with = "number")]
    pub rows: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StartRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub process: ProcessConfig,
    #[serde(default)]
    pub pty: Option<Pty>,
    #[serde(default)]
    pub tag: Option<String>,
    /// Absent means an input pipe, for clients older than the field.
    #[serde(default)]
    pub stdin: Option<bool>,
}

/// Names a process by one of the two; both or none is the client's mistake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ProcessSelector {
    #[serde(default, deserialize_with = "optional_number")]
    pub pid: Option<u32>,
    #[serde(default)]
    pub tag: Option<String>,
}

/// Messages that hold nothing but a selector: connect, close stdin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SelectRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub process: ProcessSelector,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ProcessInput {
    #[serde(default)]
    pub stdin: Option<Blob>,
    #[serde(default)]
    pub pty: Option<Blob>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SendInputRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub process: ProcessSelector,
    #[serde(default, deserialize_with = "or_default")]
    pub input: ProcessInput,
}

/// One message of an input stream; exactly one member is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StreamInputRequest {
    #[serde(default)]
    pub start: Option<SelectRequest>,
    #[serde(default)]
    pub data: Option<StreamInputData>,
    #[serde(default)]
    pub keepalive: Option<Nothing>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StreamInputData {
    #[serde(default, deserialize_with = "or_default")]
    pub input: ProcessInput,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SendSignalRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub process: ProcessSelector,
    #[serde(default, deserialize_with = "or_default")]
    pub signal: Signal,
}

/// By name or by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "SignalForm")]
pub enum Signal {
    #[default]
    Unspecified,
    Term,
    Kill,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SignalForm {
    Name(String),
    Number(i64),
}

impl From<SignalForm> for Signal {
    fn from(form: SignalForm) -> Self {
        match form {
            SignalForm::Name(name) => match name.as_str() {
                "SIGNAL_SIGTERM" => Self::Term,
                "SIGNAL_SIGKILL" => Self::Kill,
                _ => Self::Unspecified,
            },
            SignalForm::Number(15) => Self::Term,
            SignalForm::Number(9) => Self::Kill,
            SignalForm::Number(_) => Self::Unspecified,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct UpdateRequest {
    #[serde(default, deserialize_with = "or_default")]
    pub process: ProcessSelector,
    #[serde(default)]
    pub pty: Option<Pty>,
}

/// A message without fields that matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ListResponse {
    pub processes: Vec<ProcessInfo>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProcessInfo {
    pub config: ProcessConfig,
    pub pid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// The answers of `Start` and `Connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessStreamResponse {
    pub event: ProcessEvent,
}

/// Output is not here: it is encoded without a copy, see the server's `connect` module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessEvent {
    Start { pid: u32 },
    End(EndEvent),
    Keepalive {},
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndEvent {
    /// −1 for what a signal ended.
    pub exit_code: i32,
    pub exited: bool,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_with_tolerance() {
        let request: StartRequest = serde_json::from_str(
            r#"{"process":{"cmd":"/bin/bash","args":["-l"],"envs":null,"later":1},
               "pty":{"size":{"cols":80,"rows":"24"}},"unknown":{}}"#,
        )
        .unwrap();
        assert_eq!(request.process.cmd, "/bin/bash");
        assert_eq!(request.stdin, None);
        assert_eq!(
            request.pty.unwrap().size.unwrap(),
            PtySize { cols: 80, rows: 24 }
        );
        let select: SelectRequest = serde_json::from_str(r#"{"process":{"pid":7}}"#).unwrap();
        assert_eq!(select.process.pid, Some(7));
        for (text, signal) in [
            (r#"{"signal":"SIGNAL_SIGKILL"}"#, Signal::Kill),
            (r#"{"signal":15}"#, Signal::Term),
            (r#"{"signal":null}"#, Signal::Unspecified),
        ] {
            let request: SendSignalRequest = serde_json::from_str(text).unwrap();
            assert_eq!(request.signal, signal, "{text}");
        }
    }

    #[test]
    fn bytes_come_in_either_alphabet_with_or_without_padding() {
        for text in ["+/8=", "+/8", "-_8=", "-_8"] {
            let json = format!("\"{text}\"");
            let blob: Blob = serde_json::from_str(&json).unwrap();
            assert_eq!(blob.0, [0xfb, 0xff], "{text}");
        }
        assert!(serde_json::from_str::<Blob>("\"*\"").is_err());
    }

    #[test]
    fn events_have_the_shape_clients_read() {
        let event = |event| serde_json::to_string(&ProcessStreamResponse { event }).unwrap();
        assert_eq!(
            event(ProcessEvent::Start { pid: 5 }),
            r#"{"event":{"start":{"pid":5}}}"#
        );
        assert_eq!(
            event(ProcessEvent::Keepalive {}),
            r#"{"event":{"keepalive":{}}}"#
        );
        let end = EndEvent {
            exit_code: -1,
            exited: false,
            status: "signal: killed".into(),
            error: Some("signal: killed".into()),
        };
        assert_eq!(
            event(ProcessEvent::End(end)),
            r#"{"event":{"end":{"exitCode":-1,"exited":false,"status":"signal: killed","error":"signal: killed"}}}"#
        );
    }
}
