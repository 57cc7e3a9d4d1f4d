//! What the gateway itself answers. Texts are part of the contract: clients look for them.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::envd::GatewayError;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("should-retry");

/// How the client wants to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    /// Somebody looks at it in a browser.
    Html,
}

impl Form {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
        };
        let browser = text(header::USER_AGENT).is_some_and(|agent| agent.contains("Mozilla/"));
        let accept = text(header::ACCEPT).unwrap_or_default();
        if browser && accept.contains("text/html") && !accept.contains("application/json") {
            Self::Html
        } else {
            Self::Json
        }
    }
}

/// A request that is not brought to its sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    port: Option<u16>,
    form: Form,
    retry: Retry,
}

/// Whether clients that retry by themselves are told not to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    AsTheyLike,
    Pointless,
}

impl Refusal {
    pub(crate) fn plain(status: StatusCode, message: impl Into<String>, form: Form) -> Self {
        Self {
            status,
            message: message.into(),
            port: None,
            form,
            retry: Retry::AsTheyLike,
        }
    }

    /// It does not run: never was, ended, was paused.
    pub(crate) fn not_found(form: Form) -> Self {
        Self {
            retry: Retry::Pointless,
            ..Self::plain(StatusCode::BAD_GATEWAY, "The sandbox was not found", form)
        }
    }

    pub(crate) fn of_fault(fault: &Fault, port: u16, form: Form) -> Self {
        match fault.code {
            Code::SandboxNotFound | Code::Asleep => Self::not_found(form),
            Code::PortNotOpen => Self {
                port: Some(port),
                ..Self::plain(
                    StatusCode::BAD_GATEWAY,
                    "The sandbox is running but port is not open",
                    form,
                )
            },
            Code::Transitioning => Self::plain(
                StatusCode::CONFLICT,
                "The sandbox is still transitioning. Try again in a moment.",
                form,
            ),
            code => {
                tracing::warn!(%code, error = %fault, "a request did not reach its sandbox");
                let status = StatusCode::from_u16(code.http_status())
                    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Self::plain(status, fault.message.clone(), form)
            }
        }
    }

    pub(crate) fn response(&self, sandbox: &str) -> Response {
        let (content_type, body) = match self.form {
            Form::Json => ("application/json", self.json(sandbox)),
            Form::Html => ("text/html; charset=utf-8", self.html(sandbox)),
        };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.retry == Retry::Pointless {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }

    fn json(&self, sandbox: &str) -> Vec<u8> {
        let body = GatewayError {
            sandbox_id: sandbox.to_owned(),
            message: self.message.clone(),
            port: self.port,
            code: self.status.as_u16(),
        };
        serde_json::to_vec(&body).expect("a gateway error serializes")
    }

    fn html(&self, sandbox: &str) -> Vec<u8> {
        let (sandbox, message) = (escape(sandbox), escape(&self.message));
        let port = self
            .port
            .map(|port| format!(" · port {port}"))
            .unwrap_or_default();
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{message}</title><style>body{{font:16px/1.5 \
             system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1rem;color-scheme:\
             light dark}}code{{opacity:.7}}</style><h1>{message}</h1><p><code>{sandbox}{port}\
             </code></p></html>"
        )
        .into_bytes()
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
