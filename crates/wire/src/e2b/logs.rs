//! A sandbox's log.

use std::collections::BTreeMap;

use serde::Serialize;
use woodfrog_types::event::SandboxEvent;

/// Reply of the first generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxLogs {
    pub logs: Vec<LogLine>,
    pub log_entries: Vec<LogEntry>,
}

/// Reply of the second generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SandboxLogsV2 {
    pub logs: Vec<LogEntry>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogLine {
    pub timestamp: String,
    pub line: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogEntry {
    pub timestamp: String,
    pub level: &'static str,
    pub message: String,
    pub fields: BTreeMap<String, String>,
}

impl From<SandboxEvent> for LogEntry {
    fn from(event: SandboxEvent) -> Self {
        let mut fields = event.fields;
        fields.insert("event".to_owned(), event.kind);
        Self {
            timestamp: event.at.to_rfc3339(),
            level: event.level.as_str(),
            message: event.message,
            fields,
        }
    }
}

impl From<&LogEntry> for LogLine {
    fn from(entry: &LogEntry) -> Self {
        Self {
            timestamp: entry.timestamp.clone(),
            line: entry.message.clone(),
        }
    }
}

impl From<Vec<LogEntry>> for SandboxLogs {
    fn from(log_entries: Vec<LogEntry>) -> Self {
        Self {
            logs: log_entries.iter().map(LogLine::from).collect(),
            log_entries,
        }
    }
}
