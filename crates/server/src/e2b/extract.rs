//! Extractors whose rejections have this face's error shape.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use http::request::Parts;
use serde::de::DeserializeOwned;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::{Fault, SandboxId};

use super::error::E2bError;
use crate::input::{json_bytes, parse_json};

/// A JSON body, whatever its content type says.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = E2bError;

    async fn from_request(request: Request, _: &S) -> Result<Self, E2bError> {
        let bytes = json_bytes(request.into_body()).await?;
        Ok(Self(parse_json(&bytes)?))
    }
}

/// A JSON body that may be absent or `null`.
pub(super) struct OptionalBody<T>(pub(super) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = E2bError;

    async fn from_request(request: Request, _: &S) -> Result<Self, E2bError> {
        let bytes = json_bytes(request.into_body()).await?;
        if bytes.trim_ascii().is_empty() {
            return Ok(Self(T::default()));
        }
        Ok(Self(parse_json::<Option<T>>(&bytes)?.unwrap_or_default()))
    }
}

/// The query's pairs, decoded once.
pub(super) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, E2bError> {
        match Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(error) => Err(Fault::invalid("query", error.body_text()).into()),
        }
    }
}

impl Params {
    /// The first value of a parameter; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a list parameter, repeated or separated by commas.
    pub(super) fn items(&self, name: &str) -> Vec<&str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// A parameter that is parsed; 400 if it cannot be.
    pub(super) fn parse<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Fault> {
        let parse = |value: &str| {
            value
                .parse()
                .map_err(|_| Fault::invalid(name, format!("invalid value of `{name}`")))
        };
        self.get(name).map(parse).transpose()
    }

    /// `limit` and `nextToken`.
    pub(super) fn page(&self) -> Result<PageRequest, Fault> {
        let limit = self.parse::<usize>("limit")?.unwrap_or(PAGE_ITEMS_MAX);
        if !(1..=PAGE_ITEMS_MAX).contains(&limit) {
            let message = format!("limit must be between 1 and {PAGE_ITEMS_MAX}");
            return Err(Fault::invalid("limit", message));
        }
        Ok(PageRequest {
            limit,
            cursor: self.get("nextToken").map(str::to_owned),
        })
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        self.0
            .iter()
            .filter(move |(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// The path's two parameters as text.
pub(super) struct Segments(pub(super) String, pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, E2bError> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((first, second))) => Ok(Self(first, second)),
            Err(error) => Err(Fault::invalid("path", error.body_text()).into()),
        }
    }
}

/// The path's one parameter as text.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, E2bError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(error) => Err(Fault::invalid("path", error.body_text()).into()),
        }
    }
}

/// The sandbox that the path names: `{id}` or `{id}-{clientID}`. What cannot be an id is a
/// sandbox that does not exist.
pub(super) struct InPath(pub(super) SandboxId);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = E2bError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, E2bError> {
        let Segment(text) = Segment::from_request_parts(parts, state).await?;
        Ok(Self(sandbox_id(&text)?))
    }
}

/// The sandbox that `text` names.
pub(super) fn sandbox_id(text: &str) -> Result<SandboxId, Fault> {
    let short = text.split('-').next().unwrap_or_default();
    short.parse().map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Fault::sandbox_not_found(&shown)
    })
}

/// Says where the next page begins; the last page has no such header.
pub(super) fn next_token(headers: &mut http::HeaderMap, next: Option<&str>) -> Result<(), Fault> {
    if let Some(next) = next {
        let value = http::HeaderValue::from_str(next).map_err(Fault::internal)?;
        headers.insert("x-next-token", value);
    }
    Ok(())
}
