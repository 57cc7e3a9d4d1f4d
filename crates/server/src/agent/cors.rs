//! Which other origins' pages may call.

use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, Any, CorsLayer};

/// What a server allows; without origins nothing is, and no layer is needed.
#[derive(Debug, Clone, Default)]
pub struct CorsOptions {
    /// `*` is all of them.
    pub origins: Vec<String>,
    /// Empty: any.
    pub methods: Vec<String>,
    /// Empty: any.
    pub headers: Vec<String>,
    pub credentials: bool,
}

/// An option that makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum CorsError {
    #[error("`{0}` is not an origin")]
    Origin(String),
    #[error("`{0}` is not a method")]
    Method(String),
    #[error("`{0}` is not the name of a header")]
    Header(String),
    #[error("credentials cannot be allowed for every origin: name the origins")]
    EveryOrigin,
}

impl CorsOptions {
    /// The layer, if anything is allowed.
    pub fn layer(&self) -> Result<Option<CorsLayer>, CorsError> {
        if self.origins.is_empty() {
            return Ok(None);
        }
        let layer = CorsLayer::new()
            .allow_origin(self.origin()?)
            .allow_methods(self.allowed_methods()?)
            .allow_headers(self.allowed_headers()?)
            .allow_credentials(self.credentials);
        Ok(Some(layer))
    }

    fn origin(&self) -> Result<AllowOrigin, CorsError> {
        if self.origins.iter().any(|origin| origin == "*") {
            return match self.credentials {
                true => Err(CorsError::EveryOrigin),
                false => Ok(Any.into()),
            };
        }
        let parse = |origin: &String| {
            HeaderValue::from_str(origin)
                .ok()
                .filter(|_| origin.contains("://"))
                .ok_or_else(|| CorsError::Origin(origin.clone()))
        };
        let list = self.origins.iter().map(parse);
        Ok(AllowOrigin::list(list.collect::<Result<Vec<_>, _>>()?))
    }

    fn allowed_methods(&self) -> Result<AllowMethods, CorsError> {
        if self.methods.is_empty() {
            // `*` means nothing where credentials are sent.
            return Ok(match self.credentials {
                true => AllowMethods::mirror_request(),
                false => Any.into(),
            });
        }
        let parse = |method: &String| {
            let upper = method.to_ascii_uppercase();
            Method::from_bytes(upper.as_bytes()).map_err(|_| CorsError::Method(method.clone()))
        };
        let list = self.methods.iter().map(parse);
        Ok(AllowMethods::list(list.collect::<Result<Vec<_>, _>>()?))
    }

    fn allowed_headers(&self) -> Result<AllowHeaders, CorsError> {
        if self.headers.is_empty() {
            return Ok(match self.credentials {
                true => AllowHeaders::mirror_request(),
                false => Any.into(),
            });
        }
        let parse = |name: &String| {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| CorsError::Header(name.clone()))
        };
        let list = self.headers.iter().map(parse);
        Ok(AllowHeaders::list(list.collect::<Result<Vec<_>, _>>()?))
    }
}
