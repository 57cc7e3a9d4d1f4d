//! Errors, as RFC 9457 says.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use woodfrog_types::Fault;

/// An error reply, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:woodfrog:error:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What went wrong and what to do.
    pub detail: String,
    /// Stable: match on this.
    pub code: String,
    /// Finds this request in the server's log.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// The fields that are to blame.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub errors: Vec<FieldProblem>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// A JSON pointer into the request, as a URI fragment: `#/network/allow_out/2`.
    pub pointer: String,
    pub detail: String,
}

impl Problem {
    /// A problem from its parts.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let words = code.replace('_', " ");
        let mut letters = words.chars();
        let title = letters.next().map_or_else(String::new, |first| {
            first.to_uppercase().chain(letters).collect()
        });
        Self {
            kind: format!("urn:woodfrog:error:{code}"),
            title,
            status,
            detail: detail.into(),
            code: code.to_owned(),
            request_id: None,
            errors: Vec::new(),
        }
    }
}

impl From<&Fault> for Problem {
    fn from(fault: &Fault) -> Self {
        let field = fault.field.as_deref().map(|field| FieldProblem {
            pointer: pointer(field),
            detail: fault.message.clone(),
        });
        Self {
            errors: field.into_iter().collect(),
            ..Self::new(
                fault.code.http_status(),
                fault.code.as_str(),
                &fault.message,
            )
        }
    }
}

/// `network.allow_out[2]` → `#/network/allow_out/2`.
fn pointer(field: &str) -> String {
    let parts = field
        .split(['.', '[', ']'])
        .filter(|part| !part.is_empty())
        .map(|part| part.replace('~', "~0").replace('/', "~1"));
    parts.fold("#".to_owned(), |all, part| format!("{all}/{part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_becomes_a_pointer() {
        assert_eq!(pointer("network.allow_out[2]"), "#/network/allow_out/2");
        assert_eq!(pointer("a/b~c"), "#/a~1b~0c");
    }

    #[test]
    fn a_fault_becomes_a_problem() {
        let problem = Problem::from(&Fault::invalid("template", "template is required"));
        let json = serde_json::to_value(&problem).expect("json");
        assert_eq!(
            json,
            serde_json::json!({
                "type": "urn:woodfrog:error:invalid_argument",
                "title": "Invalid argument",
                "status": 400,
                "detail": "template is required",
                "code": "invalid_argument",
                "errors": [{"pointer": "#/template", "detail": "template is required"}],
            })
        );
    }
}
