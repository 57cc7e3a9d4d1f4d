//! Extractors whose rejections are problems.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use serde::de::DeserializeOwned;
use woodfrog_types::{Fault, SandboxId};

use super::problem::Failure;
use crate::input::{json_bytes, parse_json};

/// A JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = json_bytes(request.into_body()).await?;
        Ok(Self(parse_json(&bytes)?))
    }
}

/// A JSON body that may be absent.
pub(super) struct OptionalJson<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let bytes = json_bytes(request.into_body()).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse_json::<Option<T>>(&bytes)?.unwrap_or_default()))
    }
}

/// The query.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(error) => Err(Fault::invalid("query", error.body_text()).into()),
        }
    }
}

/// The path's parameters as text: a `String` or a tuple of them.
pub(super) struct Segments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(error) => Err(Fault::invalid("path", error.body_text()).into()),
        }
    }
}

/// The sandbox that the path names. What cannot be an id is a sandbox that does not exist.
pub(super) struct InPath(pub(super) SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Segments(text) = Segments::<String>::from_request_parts(parts, state).await?;
        Ok(Self(sandbox_id(&text)?))
    }
}

/// `key=value` pairs, separated by commas.
pub(super) fn pairs(field: &str, text: &str) -> Result<BTreeMap<String, String>, Fault> {
    let pair = |pair: &str| {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Fault::invalid(field, format!("{field} must be key=value pairs")))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(pair)
        .collect()
}

/// The sandbox that `text` names.
pub(super) fn sandbox_id(text: &str) -> Result<SandboxId, Fault> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Fault::sandbox_not_found(&shown)
    })
}
