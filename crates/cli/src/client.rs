//! The HTTP client of the native API.

mod error;
mod lines;
mod place;
mod socket;

use std::time::Duration;

use reqwest::{Certificate, Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::args::Target;

pub use error::ClientError;
pub use lines::Lines;
pub use place::Place;
pub use socket::{Message, Socket};

/// How long making a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the server may take until it answers. Creating and deleting sandboxes wait for the
/// machine; nothing else comes near it.
const ANSWER_MAX: Duration = Duration::from_secs(180);
/// Bytes of one JSON answer.
const JSON_BYTES_MAX: usize = 64 << 20;

/// A server, and the key to it. A cheap clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    place: Place,
    workspace: Option<String>,
}

impl Client {
    /// The client for the server that the flags name; nothing is sent yet.
    ///
    /// # Errors
    /// The URL, the key's file or the authority's file cannot be used.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        let place = Place::find(target)?;
        let authority = target.ca.clone().or_else(|| place.authority.clone());
        let mut certificates = Vec::new();
        if let Some(path) = authority.filter(|_| place.url.scheme() == "https") {
            let unusable = |why: String| {
                let path = path.display();
                ClientError::Setup(format!("the certificates in {path} cannot be used: {why}"))
            };
            let pem = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
            certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| unusable(error::root(&error)))?;
        }
        let http = http(&place.url, certificates)?;
        let workspace = target.workspace.clone();
        Ok(Self {
            http,
            place,
            workspace,
        })
    }

    /// Where the server is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The URL of a route of the native API, each segment escaped.
    pub fn route(&self, segments: &[&str]) -> Url {
        let path = ["api", "v1"].iter().chain(segments);
        self.root_route(path.copied())
    }

    /// The URL of a route of another face on the same port.
    pub fn root_route<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.place.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    /// A request with the key. Streams have no deadline; [`Client::send`] waits for answers.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let request = self.http.request(method, url);
        let request = match &self.workspace {
            Some(workspace) => request.header("x-woodfrog-workspace", workspace),
            None => request,
        };
        match &self.place.key {
            Some(key) => request.header("x-api-key", key),
            None => request,
        }
    }

    /// A request without the key: for URLs that the server gave, which carry their own.
    pub fn anonymous(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// A GET request.
    pub fn get(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::GET, self.route(segments))
    }

    /// A POST request.
    pub fn post(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::POST, self.route(segments))
    }

    /// A DELETE request.
    pub fn delete(&self, segments: &[&str]) -> RequestBuilder {
        self.request(Method::DELETE, self.route(segments))
    }

    /// Sends a request and waits for the head of a good answer.
    ///
    /// # Errors
    /// The server cannot be reached, says no, or is silent for too long.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        match tokio::time::timeout(ANSWER_MAX, self.upload(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Silent(ANSWER_MAX)),
        }
    }

    /// Like [`Client::send`], for requests whose body takes as long as it takes.
    ///
    /// # Errors
    /// The server cannot be reached or says no.
    pub async fn upload(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let answer = request.send().await;
        let answer = answer.map_err(|error| ClientError::transport(&self.place.url, error))?;
        if answer.status().is_success() || answer.status() == 101 {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let body = tokio::time::timeout(ANSWER_MAX, body(answer)).await;
        Err(ClientError::refusal(
            status,
            &body.unwrap_or(Ok(Vec::new()))?,
        ))
    }

    /// Sends a request and reads a JSON answer.
    ///
    /// # Errors
    /// As [`Client::send`], or the answer is not understood.
    pub async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let answer = self.send(request).await?;
        parsed(answer).await
    }

    /// As [`Client::json`], for answers that take as long as they take.
    ///
    /// # Errors
    /// As [`Client::upload`], or the answer is not understood.
    pub async fn json_unhurried<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
    ) -> Result<T, ClientError> {
        let answer = self.upload(request).await?;
        parsed(answer).await
    }
}

async fn parsed<T: DeserializeOwned>(answer: Response) -> Result<T, ClientError> {
    let body = tokio::time::timeout(ANSWER_MAX, body(answer)).await;
    let body = body.map_err(|_| ClientError::Silent(ANSWER_MAX))??;
    serde_json::from_slice(&body).map_err(ClientError::Malformed)
}

async fn body(mut answer: Response) -> Result<Vec<u8>, ClientError> {
    let mut all = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ClientError::Broken)? {
        if all.len() + chunk.len() > JSON_BYTES_MAX {
            return Err(ClientError::Setup("the server's answer is too long".into()));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

fn http(url: &Url, certificates: Vec<Certificate>) -> Result<reqwest::Client, ClientError> {
    // Fails only if there is one already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .user_agent(concat!("woodfrog/", env!("CARGO_PKG_VERSION")))
        // Terminals are upgraded connections, which HTTP/2 does not have.
        .http1_only()
        .redirect(reqwest::redirect::Policy::none());
    if place::is_loopback(url) {
        builder = builder.no_proxy();
    }
    builder = if url.scheme() == "https" {
        builder.tls_certs_merge(certificates)
    } else {
        // The system's authorities are not needed, and need not exist.
        builder.tls_certs_only(certificates)
    };
    builder.build().map_err(|error| {
        ClientError::Setup(format!("TLS cannot be set up: {}", error::root(&error)))
    })
}
